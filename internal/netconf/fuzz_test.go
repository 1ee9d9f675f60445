// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf_test

import (
	"errors"
	"path"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// FuzzParse holds what every caller relies on: a refused configuration says why in known codes, an accepted one is
// complete and within its bounds, and DEL reads the same network out of both.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		vpcipam(""),
		vpcipvlan(`, "eni": {"subnetTags": {"multus": "1"}}, "mtu": 1500, "ipam": {"type": "vpcipam", "timeout": "3s"}`),
		vpcipvlan(`, "master": "eth1", "register": false, "ipam": {"type": "host-local"}`),
		vpcipam(`, "routes": [{"dst": "0.0.0.0/0", "gw": "10.10.1.1", "table": 7}], "dns": {"nameservers": ["10.0.0.2"]}`),
		vpcipam(`, "rootes": [null], "gateway": 7`),
		`{"name": "n6", "type": "ipvlan", "master": "eth1", "ipam": {"type": "vpcipam"}}`,
		`{"a": {"b": [`, `null`, `{}`, `[]`,
	} {
		f.Add([]byte(seed), "K8S_POD_NAME=a;IP=")
	}
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		in := netconf.Env{Args: args, AgentSocket: "/run/agent.sock"}
		rel := netconf.ParseRelease(stdin, in)
		full, err := netconf.ParseVPCIpvlan(stdin, in)
		if refused(t, err) {
			_, err = netconf.ParseVPCIPAM(stdin, in)
			refused(t, err)
			return
		}
		if rel.Name != full.Name || rel.IPAMType != full.IPAMType || rel.AgentSocket != full.IPAM.AgentSocket {
			t.Errorf("DEL reads %+v, ADD %+v", rel, full)
		}
		switch {
		case full.Master != "" && !full.Selector.IsZero():
			t.Error("accepted eni and master together")
		case full.MTU < 0 || full.MTU > 9001:
			t.Errorf("accepted MTU %d", full.MTU)
		case full.IPAM.Timeout < netconf.MinTimeout || full.IPAM.Timeout > netconf.MaxTimeout:
			t.Errorf("accepted timeout %s", full.IPAM.Timeout)
		case !path.IsAbs(full.IPAM.AgentSocket):
			t.Errorf("accepted socket %q", full.IPAM.AgentSocket)
		case full.IPAMType == "":
			t.Error("accepted no IPAM type")
		}
		for _, r := range full.IPAM.Routes {
			if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() {
				t.Errorf("accepted destination %v", r.Dst)
			}
		}
	})
}

func refused(t *testing.T, err error) bool {
	t.Helper()
	if err == nil {
		return false
	}
	problems, ok := errors.AsType[netconf.Problems](err)
	if !ok || len(problems) == 0 {
		t.Fatalf("error = %#v, want Problems", err)
	}
	for _, p := range problems {
		if p.Code != 2 && p.Code != 6 && p.Code != 7 || p.Message == "" || (p.Path == "" && p.Code != 6) {
			t.Errorf("problem = %+v", p)
		}
	}
	return true
}
