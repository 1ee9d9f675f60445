// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf_test

import (
	"errors"
	"net/netip"
	"path"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

type parseSeed struct {
	doc string
	// The CNI codes that vpcipvlan, vpcipam and GC refuse it with; 0 where it is accepted.
	vpcipvlan, vpcipam, gc uint
}

// parseSeeds are configurations of every kind, and what becomes of each.
func parseSeeds() []parseSeed {
	return []parseSeed{
		{vpcipam(""), 0, 0, 7},
		{vpcipvlan(`, "eni": {"subnetTags": {"multus": "1"}}, "mtu": 1500, "ipam": {"type": "vpcipam", "timeout": "3s"}`), 0, 0, 7},
		{vpcipvlan(`, "master": "eth1", "register": false, "ipam": {"type": "host-local"}`), 0, 7, 7},
		{vpcipam(`, "routes": [{"dst": "0.0.0.0/0", "gw": "10.10.1.1", "table": 7}], "dns": {"nameservers": ["10.0.0.2"]}`), 0, 0, 7},
		{vpcipam(`, "rootes": [null], "gateway": 7`), 2, 2, 7},
		{vpcipam(`, "families": ["ipv6", "ipv4"], "gateway": ["10.10.1.1", "fe80::1"], "ranges": ["10.0.0.0/28", "::1-::2"], "sticky": {"statefulSet": "a"}`), 0, 0, 7},
		{vpcipam(`, "source": "prefix", "addresses": ["10.10.1.70/24", "2001:db8::1"]`), 0, 0, 7},
		{vpcipvlan(`, "runtimeConfig": {"ips": ["10.10.1.1"], "mac": ""}, "args": {"cni": {"ips": "::1"}}, "onConflict": "never", "ipam": {"type": "static"}`), 0, 7, 7},
		{`{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "net1"}], "cni.dev/attachments": null}`, 7, 7, 0},
		{`{"name": "n6", "type": "ipvlan", "master": "eth1", "ipam": {"type": "vpcipam"}}`, 0, 0, 7},
		{`{"a": {"b": [`, 6, 6, 6},
		{`null`, 6, 6, 6},
		{`{}`, 7, 7, 7},
		{`[]`, 6, 6, 6},
	}
}

func TestSeedsOfConfigurations(t *testing.T) {
	in := netconf.Env{Args: "K8S_POD_NAME=a;IP=", AgentSocket: "/run/agent.sock"}
	code := func(err error) uint {
		if !refused(t, err) {
			return 0
		}
		problems, _ := errors.AsType[netconf.Problems](err)
		return problems.Code()
	}
	for _, seed := range parseSeeds() {
		got := parseSeed{doc: seed.doc}
		_, err := netconf.ParseVPCIpvlan([]byte(seed.doc), in)
		got.vpcipvlan = code(err)
		_, err = netconf.ParseVPCIPAM([]byte(seed.doc), in)
		got.vpcipam = code(err)
		doc, err := netconf.Open([]byte(seed.doc))
		if err == nil {
			_, err = doc.Valid()
		}
		got.gc = code(err)
		if got != seed {
			t.Errorf("codes %d, %d and %d, want %d, %d and %d of\n%s", got.vpcipvlan, got.vpcipam, got.gc, seed.vpcipvlan, seed.vpcipam, seed.gc, seed.doc)
		}
	}
}

// FuzzParse holds what every caller relies on: a refused configuration says why in known codes, an accepted one is
// complete and within its bounds, and DEL reads the same network out of both.
func FuzzParse(f *testing.F) {
	for _, seed := range parseSeeds() {
		f.Add([]byte(seed.doc), "K8S_POD_NAME=a;IP=")
	}
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		in := netconf.Env{Args: args, AgentSocket: "/run/agent.sock"}
		doc, err := netconf.Open(stdin)
		if refused(t, err) {
			return
		}
		valid, err := doc.Valid()
		if !refused(t, err) && valid == nil {
			t.Error("no list of valid attachments, and no error")
		}
		rel := doc.Release(in)
		full, err := doc.VPCIpvlan(in)
		if refused(t, err) {
			_, err = doc.VPCIPAM(in)
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
		if full.IPAMType == netconf.TypeVPCIPAM {
			complete(t, full.IPAM)
		} else if rel.Registered != full.Register {
			t.Errorf("DEL reads %+v, ADD %+v", rel, full)
		}
	})
}

// complete holds that an accepted ipam object contradicts itself nowhere.
func complete(t *testing.T, c netconf.IPAM) {
	t.Helper()
	for _, r := range c.Routes {
		if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() {
			t.Errorf("accepted destination %v", r.Dst)
		}
	}
	for _, list := range [][]netip.Addr{c.Requested, c.Gateways} {
		if len(list) > 2 || len(list) == 2 && list[0].Is4() == list[1].Is4() {
			t.Errorf("accepted addresses %v", list)
		}
	}
	switch {
	case len(c.Families) == 0 || len(c.Families) > 2 || len(c.Families) == 2 && c.Families[0] == c.Families[1]:
		t.Errorf("accepted families %q", c.Families)
	case c.Requested != nil && len(c.Requested) != len(c.Families):
		t.Errorf("families %q of %v", c.Families, c.Requested)
	case c.Sticky != nil && (c.Sticky.StatefulSet == "" || c.Requested != nil || len(c.Ranges) == 0):
		t.Errorf("accepted sticky %+v", c)
	case c.Source != "reservation" && (c.Ranges != nil || c.ReservationTags != nil || c.Exclude != nil || c.Sticky != nil):
		t.Errorf("accepted source %q with what narrows a reservation", c.Source)
	}
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
