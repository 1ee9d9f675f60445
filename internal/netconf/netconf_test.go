// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

var env = netconf.Env{AgentSocket: "/run/agent.sock"}

func one() *int { i := 1; return &i }

var opts = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func TestShortestConfigurationTakesDefaults(t *testing.T) {
	got, err := netconf.ParseVPCIpvlan([]byte(`{"cniVersion": "1.0.0", "name": "n6", "type": "vpcipvlan",
		"eni": {"deviceIndex": 1}, "ipam": {"type": "vpcipam"}}`), env)
	if err != nil {
		t.Fatal(err)
	}
	want := netconf.VPCIpvlan{
		CNIVersion: "1.0.0", Name: "n6",
		Target:        netconf.Target{Selector: eni.Selector{DeviceIndex: one()}},
		SourceRouting: true,
		IPAMType:      "vpcipam",
		IPAM: netconf.IPAM{
			Source: "reservation", Families: []string{"ipv4"}, AgentSocket: "/run/agent.sock", Timeout: 20 * time.Second,
		},
	}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	got, err := netconf.ParseVPCIpvlan([]byte(`{
		"cniVersion": "1.1.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "n6", "type": "vpcipvlan", "capabilities": {"mac": true},
		"args": {"cni": {"ips": []}}, "runtimeConfig": {"ips": [], "mac": ""}, "disableCheck": false, "disableGC": false, "cni.dev/attachments": [],
		"eni": {"deviceIndex": 2, "networkCard": 1, "subnetID": "subnet-1", "subnetTags": {"multus": "1"}},
		"mtu": 1500, "mode": "l2", "sourceRouting": false, "register": true, "dns": {"nameservers": ["10.0.0.2"]},
		"prevResult": {"cniVersion": "1.1.0"},
		"ipam": {"type": "vpcipam", "source": "reservation", "families": ["ipv4", "ipv6"], "gateway": ["10.10.1.1", "fe80::1"],
			"agentSocket": "/a.sock", "timeout": "3s", "reservationTags": {"net": "n6"}, "sticky": {"statefulSet": "amf"},
			"ranges": ["10.10.1.64/28", "2001:db8::10-2001:db8::1f"], "exclude": ["10.10.1.70"], "dns": {"domain": "d", "search": ["s"], "options": ["o"], "nameservers": ["::1"]},
			"routes": [{"dst": "10.0.0.0/8", "gw": "10.10.1.2", "mtu": 1400, "advmss": 1360, "priority": 5, "table": 7, "scope": 0}, {"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fe80::2"}]}}`),
		netconf.Env{AgentSocket: "/b.sock", Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=amf-0;K8S_POD_UID=u;x"})
	if err != nil {
		t.Fatal(err)
	}
	seven, zero, two, card := 7, 0, 2, 1
	want := netconf.VPCIpvlan{
		CNIVersion: "1.1.0", Name: "n6",
		Target: netconf.Target{Selector: eni.Selector{
			DeviceIndex: &two, NetworkCard: &card, SubnetID: "subnet-1", SubnetTags: map[string]string{"multus": "1"},
		}},
		MTU: 1500, DNS: types.DNS{Nameservers: []string{"10.0.0.2"}},
		Pod:      attachment.Pod{Namespace: "ns", Name: "amf-0", UID: "u"},
		IPAMType: "vpcipam",
		IPAM: netconf.IPAM{
			Source: "reservation", Families: []string{"ipv4", "ipv6"}, AgentSocket: "/a.sock", Timeout: 3 * time.Second,
			Gateways:        []netip.Addr{netip.MustParseAddr("10.10.1.1"), netip.MustParseAddr("fe80::1")},
			ReservationTags: map[string]string{"net": "n6"}, Sticky: &attachment.Sticky{StatefulSet: "amf"},
			Ranges: []attachment.Range{
				{From: netip.MustParseAddr("10.10.1.64"), To: netip.MustParseAddr("10.10.1.79")},
				{From: netip.MustParseAddr("2001:db8::10"), To: netip.MustParseAddr("2001:db8::1f")},
			},
			Exclude: []attachment.Range{{From: netip.MustParseAddr("10.10.1.70"), To: netip.MustParseAddr("10.10.1.70")}},
			DNS:     types.DNS{Domain: "d", Search: []string{"s"}, Options: []string{"o"}, Nameservers: []string{"::1"}},
			Routes: []netconf.Route{
				{
					Dst: netip.MustParsePrefix("10.0.0.0/8"), Gateway: netip.MustParseAddr("10.10.1.2"),
					MTU: 1400, AdvMSS: 1360, Priority: 5, Table: &seven, Scope: &zero,
				},
				{Dst: netip.MustParsePrefix("0.0.0.0/0")},
				{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fe80::2")},
			},
		},
	}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if !got.IPAM.Routes[1].IsDefault() || got.IPAM.Routes[0].IsDefault() {
		t.Error("IsDefault is wrong")
	}
}

func open(t *testing.T, conf string) netconf.Document {
	t.Helper()
	d, err := netconf.Open([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// vpcipvlan wraps keys into a configuration that is complete without them.
func vpcipvlan(keys string) string {
	return `{"cniVersion": "1.0.0", "name": "n6", "type": "vpcipvlan"` + keys + `}`
}

// vpcipam wraps keys of the ipam object.
func vpcipam(keys string) string { return vpcipvlan(`, "ipam": {"type": "vpcipam"` + keys + `}`) }

func TestBadVPCIpvlanIsRefused(t *testing.T) {
	tests := []struct {
		name, conf string
		code       uint
		says       []string
	}{
		{"no JSON", `{"name"`, 6, []string{"not JSON"}},
		{"no object", `[1]`, 6, []string{"not a JSON object: [1]", "correct config"}},
		{"unknown key", vpcipvlan(`, "sourcerouting": false, "ipam": {"type": "vpcipam"}`), 2, []string{"sourcerouting: unknown key (value false)", `"sourceRouting"`}},
		{"unknown key of eni", vpcipvlan(`, "eni": {"deviceIdx": 1}, "ipam": {"type": "vpcipam"}`), 2, []string{"eni.deviceIdx", "value 1", `"deviceIndex"`}},
		{"unknown key of ipam", vpcipam(`, "route": [1]`), 2, []string{"ipam.route: unknown key (value [1])", `"routes"`}},
		{"unknown key of a route", vpcipam(`, "routes": [{"dst": "10.0.0.0/8", "via": "10.0.0.1"}]`), 2, []string{"ipam.routes[0].via"}},
		{"unknown key of dns", vpcipam(`, "dns": {"nameserver": []}`), 2, []string{"ipam.dns.nameserver", `"nameservers"`}},
		{"wrong type", vpcipvlan(`, "mtu": "1500", "ipam": {"type": "vpcipam"}`), 7, []string{`mtu: "1500" is not a whole number`}},
		{"fraction", vpcipvlan(`, "mtu": 1500.5, "ipam": {"type": "vpcipam"}`), 7, []string{"mtu: 1500.5 is not a whole number"}},
		{"eni of wrong type", vpcipvlan(`, "eni": 1, "ipam": {"type": "vpcipam"}`), 7, []string{"eni: 1 is not an object"}},
		{"eni and master", vpcipvlan(`, "eni": {"deviceIndex": 1}, "master": "eth1", "ipam": {"type": "vpcipam"}`), 7, []string{"eni", `master ("eth1")`}},
		{"eni without keys", vpcipvlan(`, "eni": {}, "ipam": {"type": "vpcipam"}`), 7, []string{"eni: selects by nothing", "deviceIndex"}},
		{"index out of range", vpcipvlan(`, "eni": {"deviceIndex": -1}, "ipam": {"type": "vpcipam"}`), 7, []string{"eni.deviceIndex: -1"}},
		{"no subnet ID", vpcipvlan(`, "eni": {"subnetID": "multus-1"}, "ipam": {"type": "vpcipam"}`), 7, []string{`eni.subnetID: "multus-1"`}},
		{"empty tags", vpcipvlan(`, "eni": {"subnetTags": {}}, "ipam": {"type": "vpcipam"}`), 7, []string{"eni.subnetTags"}},
		{"empty master", vpcipvlan(`, "master": "", "ipam": {"type": "vpcipam"}`), 7, []string{"master"}},
		{"mode l3", vpcipvlan(`, "mode": "l3", "ipam": {"type": "vpcipam"}`), 7, []string{`mode: "l3"`, "host's table", `use "l2"`}},
		{"mode l3s", vpcipvlan(`, "mode": "l3s", "ipam": {"type": "vpcipam"}`), 7, []string{`mode: "l3s"`}},
		{"mode unknown", vpcipvlan(`, "mode": "l4", "ipam": {"type": "vpcipam"}`), 7, []string{`mode: "l4" is not an ipvlan mode`}},
		{"MTU too large", vpcipvlan(`, "mtu": 9216, "ipam": {"type": "vpcipam"}`), 7, []string{"mtu: 9216", "9001"}},
		{"MTU too small", vpcipvlan(`, "mtu": 10, "ipam": {"type": "vpcipam"}`), 7, []string{"mtu: 10 is not"}},
		{"floating is no range", vpcipvlan(`, "floating": ["10.10.1.200/24"], "ipam": {"type": "vpcipam"}`), 7, []string{`floating[0]: "10.10.1.200/24" has host bits set`}},
		{"floating of wrong type", vpcipvlan(`, "floating": "10.10.1.200", "ipam": {"type": "vpcipam"}`), 7, []string{`floating: "10.10.1.200" is not a list`}},
		{"floating unregistered", vpcipvlan(`, "floating": ["10.10.1.200"], "register": false, "ipam": {"type": "static"}`), 7, []string{`floating: is not possible with "register": false`}},
		{"no ipam", vpcipvlan(``), 7, []string{"ipam: missing"}},
		{"ipam of wrong type", vpcipvlan(`, "ipam": "vpcipam"`), 7, []string{`ipam: "vpcipam" is not an object`}},
		{"ipam without type", vpcipvlan(`, "ipam": {}`), 7, []string{"ipam.type: missing"}},
		{"ipam type of wrong type", vpcipvlan(`, "ipam": {"type": 1}`), 7, []string{"ipam.type: 1 is not a string"}},
		{"register ours", vpcipvlan(`, "register": false, "ipam": {"type": "vpcipam"}`), 7, []string{"register: false", "remove the key"}},
		{"onConflict of ours", vpcipvlan(`, "onConflict": "never", "ipam": {"type": "vpcipam"}`), 7, []string{"onConflict: is for"}},
		{"onConflict unknown", vpcipvlan(`, "onConflict": "steal", "ipam": {"type": "static"}`), 7, []string{`onConflict: "steal"`, `"wait-then-reassign"`}},
		{"onConflict unregistered", vpcipvlan(`, "onConflict": "never", "register": false, "ipam": {"type": "static"}`), 7, []string{"onConflict: is not possible"}},
		{"source unknown", vpcipam(`, "source": "pool"`), 7, []string{`ipam.source: "pool"`, `"prefix"`}},
		{"family unknown", vpcipam(`, "families": ["ip"]`), 7, []string{`ipam.families[0]: "ip"`}},
		{"family twice", vpcipam(`, "families": ["ipv4", "ipv4"]`), 7, []string{"twice"}},
		{"no family", vpcipam(`, "families": []`), 7, []string{"ipam.families"}},
		{"sticky without ranges", vpcipam(`, "sticky": {"statefulSet": "amf"}`), 7, []string{`ipam.sticky: needs ranges of family "ipv4"`}},
		{"sticky without ranges of one", vpcipam(`, "families": ["ipv4", "ipv6"], "ranges": ["10.0.0.0/28"], "sticky": {"statefulSet": "amf"}`), 7, []string{`family "ipv6"`}},
		{"sticky without name", vpcipam(`, "ranges": ["10.0.0.0/28"], "sticky": {}`), 7, []string{"ipam.sticky.statefulSet: missing"}},
		{"sticky with an unknown key", vpcipam(`, "ranges": ["10.0.0.0/28"], "sticky": {"statefulset": "amf"}`), 2, []string{"ipam.sticky.statefulset", `"statefulSet"`}},
		{"sticky and requested", vpcipam(`, "ranges": ["10.0.0.0/28"], "addresses": ["10.0.0.1"], "sticky": {"statefulSet": "a"}`), 7, []string{"requested addresses (ipam.addresses)"}},
		{"ranges empty", vpcipam(`, "ranges": []`), 7, []string{"ipam.ranges: is empty"}},
		{"range backwards", vpcipam(`, "ranges": ["10.0.0.0/28", "10.0.0.9-10.0.0.1"]`), 7, []string{`ipam.ranges[1]: "10.0.0.9-10.0.0.1"`}},
		{"range with host bits", vpcipam(`, "exclude": ["10.0.0.1/28"]`), 7, []string{"ipam.exclude[0]", "10.0.0.0/28"}},
		{"range of another family", vpcipam(`, "ranges": ["2001:db8::/80"]`), 7, []string{`ipam.ranges[0]: 2001:db8::-2001:db8::ffff:ffff:ffff is of family "ipv6"`}},
		{"ranges where EC2 chooses", vpcipam(`, "source": "subnet", "ranges": ["10.0.0.0/28"]`), 7, []string{`ipam.ranges: is not possible with source "subnet"`}},
		{"tags where EC2 chooses", vpcipam(`, "source": "prefix", "reservationTags": {"a": "b"}`), 7, []string{"ipam.reservationTags: is not possible"}},
		{"reservationTags empty", vpcipam(`, "reservationTags": {}`), 7, []string{"ipam.reservationTags: is empty"}},
		{"reservationTags of wrong type", vpcipam(`, "reservationTags": {"a": 1}`), 7, []string{`ipam.reservationTags.a: 1 is not a string`}},
		{"addresses no address", vpcipam(`, "addresses": ["10.10.1"]`), 7, []string{`ipam.addresses[0]: "10.10.1"`}},
		{"two of a family", vpcipam(`, "addresses": ["10.10.1.70", "10.10.1.71/24"]`), 7, []string{"ipam.addresses[1]", "second of its family"}},
		{"link-local address", vpcipam(`, "addresses": ["fe80::1"]`), 7, []string{"link-local"}},
		{"multicast address", vpcipam(`, "addresses": ["224.0.0.1"]`), 7, []string{"ipam.addresses[0]"}},
		{"gateway", vpcipam(`, "gateway": "10.10.1"`), 7, []string{`ipam.gateway: "10.10.1" is not an IP address`}},
		{"two gateways", vpcipam(`, "gateway": ["10.10.1.1", "10.10.1.2"]`), 7, []string{`ipam.gateway[1]: "10.10.1.2" is the second`}},
		{"gateway of wrong type", vpcipam(`, "gateway": 1`), 7, []string{"ipam.gateway: 1 is not an address or a list"}},
		{"gateway with a zone", vpcipam(`, "gateway": "fe80::1%eth0"`), 7, []string{"ipam.gateway"}},
		{"route without dst", vpcipam(`, "routes": [{}]`), 7, []string{"ipam.routes[0].dst: missing"}},
		{"route of wrong type", vpcipam(`, "routes": ["10.0.0.0/8", null]`), 7, []string{`ipam.routes[0]: "10.0.0.0/8"`, "ipam.routes[1]: null"}},
		{"route without length", vpcipam(`, "routes": [{"dst": "10.0.0.0"}]`), 7, []string{`ipam.routes[0].dst: "10.0.0.0"`}},
		{"route with host bits", vpcipam(`, "routes": [{"dst": "10.0.0.1/8"}]`), 7, []string{"host bits", `"10.0.0.0/8"`}},
		{"route of another family", vpcipam(`, "routes": [{"dst": "::/0"}]`), 7, []string{`ipam.routes[0].dst: ::/0 is of family "ipv6"`}},
		{"route by another family", vpcipam(`, "routes": [{"dst": "10.0.0.0/8", "gw": "fe80::1"}]`), 7, []string{"ipam.routes[0].gw: fe80::1 is not of the family"}},
		{"nameserver", vpcipam(`, "dns": {"nameservers": ["dns"]}`), 7, []string{"ipam.dns.nameservers[0]"}},
		{"timeout without unit", vpcipam(`, "timeout": "20"`), 7, []string{`ipam.timeout: "20"`}},
		{"timeout a number", vpcipam(`, "timeout": 20`), 7, []string{"ipam.timeout: 20"}},
		{"timeout too long", vpcipam(`, "timeout": "5m"`), 7, []string{"ipam.timeout: 5m0s", "3m0s"}},
		{"relative socket", vpcipam(`, "agentSocket": "agent.sock"`), 7, []string{`ipam.agentSocket: "agent.sock"`}},
		{"long socket", vpcipam(`, "agentSocket": "/` + strings.Repeat("x", 107) + `"`), 7, []string{"ipam.agentSocket", "107 bytes"}},
		{"runtimeConfig.ips", vpcipvlan(`, "runtimeConfig": {"ips": ["?"]}, "ipam": {"type": "vpcipam"}`), 7, []string{`runtimeConfig.ips[0]: "?"`}},
		{"runtimeConfig.ips of wrong type", vpcipvlan(`, "runtimeConfig": {"ips": 1}, "ipam": {"type": "vpcipam"}`), 7, []string{"runtimeConfig.ips: 1"}},
		{"args of wrong type", vpcipvlan(`, "args": 1, "ipam": {"type": "vpcipam"}`), 7, []string{"args: 1 is not an object"}},
		{"runtimeConfig.mac", vpcipvlan(`, "runtimeConfig": {"mac": "02:00:00:00:00:01"}, "ipam": {"type": "vpcipam"}`), 2, []string{"runtimeConfig.mac"}},
		{"args.cni.mac", vpcipvlan(`, "args": {"cni": {"mac": "02::"}}, "ipam": {"type": "static"}`), 2, []string{"args.cni.mac", "ENI's MAC"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := netconf.ParseVPCIpvlan([]byte(tt.conf), env)
			wantProblems(t, err, tt.code, tt.says)
		})
	}
}

func TestBadVPCIPAMIsRefused(t *testing.T) {
	upstream := func(keys string) string {
		return `{"cniVersion": "1.0.0", "name": "n6", "type": "ipvlan", "ipam": {"type": "vpcipam"}` + keys + `}`
	}
	tests := []struct {
		name, conf string
		code       uint
		says       []string
	}{
		{"ipvlan without master", upstream(``), 7, []string{"master: missing", "default route"}},
		{"ipvlan with eni alone", upstream(`, "eni": {"deviceIndex": 1}`), 7, []string{"master: missing"}},
		{"ipvlan in l3", upstream(`, "master": "eth1", "mode": "l3"`), 7, []string{`mode: "l3"`}},
		{"ipvlan on a link in the container", upstream(`, "master": "eth1", "linkInContainer": true`), 7, []string{"linkInContainer"}},
		{"eni and master", upstream(`, "master": "eth1", "eni": {"deviceIndex": 1}`), 7, []string{"together with master"}},
		{"macvlan", `{"name": "n6", "type": "macvlan", "master": "eth1", "ipam": {"type": "vpcipam"}}`, 7, []string{"macvlan", "MAC"}},
		{"another IPAM's configuration", `{"name": "n6", "type": "ipvlan", "master": "eth1", "ipam": {"type": "static"}}`, 7, []string{"ipam.type"}},
		{"unknown key", `{"name": "n6", "type": "ipvlan", "master": "eth1", "ipam": {"type": "vpcipam", "subnet": "10.0.0.0/8"}}`, 2, []string{"ipam.subnet"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := netconf.ParseVPCIPAM([]byte(tt.conf), env)
			wantProblems(t, err, tt.code, tt.says)
		})
	}
}

func wantProblems(t *testing.T, err error, code uint, says []string) {
	t.Helper()
	problems, ok := errors.AsType[netconf.Problems](err)
	if !ok {
		t.Fatalf("error = %v, want Problems", err)
	}
	if problems.Code() != code {
		t.Errorf("code = %d, want %d (%v)", problems.Code(), code, err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("message %q lacks %q", err, s)
		}
	}
}

func TestRequestedMACInArgsIsRefused(t *testing.T) {
	_, err := netconf.ParseVPCIPAM([]byte(vpcipam("")), netconf.Env{AgentSocket: "/a", Args: "IgnoreUnknown=1;MAC=02:00:00:00:00:01"})
	wantProblems(t, err, 2, []string{"CNI_ARGS MAC", "02:00:00:00:00:01", "ENI's MAC"})
}

func TestSocketFromEnvironmentIsChecked(t *testing.T) {
	_, err := netconf.ParseVPCIPAM([]byte(vpcipam("")), netconf.Env{AgentSocket: "agent.sock"})
	wantProblems(t, err, 7, []string{"MULTUS_VPC_AGENT_SOCKET", "agent.sock"})
}

func TestAllProblemsAreSaidAtOnce(t *testing.T) {
	_, err := netconf.ParseVPCIpvlan([]byte(vpcipvlan(`, "mtu": 9216, "mod": 1, "ipam": {"type": "vpcipam", "timeout": 1, "routes": [{"dst": "x"}]}`)), env)
	wantProblems(t, err, 2, []string{"mod: unknown", "mtu: 9216", "ipam.timeout: 1", "ipam.routes[0].dst"})
	if problems, _ := errors.AsType[netconf.Problems](err); len(problems) != 4 {
		t.Errorf("%d problems, want 4: %v", len(problems), err)
	}
}

func TestVPCIPAMUnderUpstreamIpvlan(t *testing.T) {
	got, err := netconf.ParseVPCIPAM([]byte(`{"cniVersion": "0.3.1", "name": "n6", "type": "ipvlan", "master": "eth1", "mtu": 1400,
		"linkInContainer": false, "anything": {"of": "upstream"}, "ipam": {"type": "vpcipam"}}`), env)
	if err != nil {
		t.Fatal(err)
	}
	if got.Master != "eth1" || !got.Selector.IsZero() || got.Name != "n6" {
		t.Errorf("got %+v", got)
	}
}

func TestForeignIPAMIsNotJudged(t *testing.T) {
	got, err := netconf.ParseVPCIpvlan([]byte(vpcipvlan(`, "master": "eth1", "runtimeConfig": {"ips": ["10.10.1.70", "10.10.1.71"]},
		"ipam": {"type": "host-local", "ranges": [], "x": 1}`)), env)
	if err != nil {
		t.Fatal(err)
	}
	want := netconf.IPAM{AgentSocket: "/run/agent.sock", Timeout: netconf.DefaultTimeout}
	if diff := cmp.Diff(want, got.IPAM, opts); diff != "" || got.IPAMType != "host-local" {
		t.Errorf("ipam (-want +got):\n%s", diff)
	}
}

func TestForeignIPAMIsRegisteredUnlessTold(t *testing.T) {
	for keys, want := range map[string]netconf.VPCIpvlan{
		``:                        {Register: true, OnConflict: attachment.WaitThenReassign},
		`, "onConflict": "never"`: {Register: true, OnConflict: attachment.Never},
		`, "register": false`:     {OnConflict: attachment.WaitThenReassign},
		`, "register": true, "onConflict": "reassign"`: {Register: true, OnConflict: attachment.Reassign},
	} {
		conf := vpcipvlan(keys + `, "ipam": {"type": "whereabouts"}`)
		got, err := netconf.ParseVPCIpvlan([]byte(conf), env)
		if err != nil || got.Register != want.Register || got.OnConflict != want.OnConflict {
			t.Errorf("%s: register %t, onConflict %q, error %v", keys, got.Register, got.OnConflict, err)
		}
		if rel := open(t, conf).Release(env); rel.Registered != want.Register || !rel.Foreign() {
			t.Errorf("%s: DEL reads %+v", keys, rel)
		}
	}
}

func TestUnsetRoutesDifferFromNone(t *testing.T) {
	for keys, unset := range map[string]bool{"": true, `, "routes": null`: true, `, "routes": []`: false} {
		got, err := netconf.ParseVPCIPAM([]byte(vpcipam(keys)), env)
		if err != nil || (got.IPAM.Routes == nil) != unset || len(got.IPAM.Routes) != 0 {
			t.Errorf("%q: routes %#v, error %v", keys, got.IPAM.Routes, err)
		}
	}
}

func TestDocumentTellsWhatEveryCallNeeds(t *testing.T) {
	for conf, want := range map[string]struct {
		name, version string
		named, dated  bool
	}{
		`{"name": "n6", "cniVersion": "1.0.0"}`: {"n6", "1.0.0", true, true},
		`{}`:                                    {"", "0.1.0", true, true},
		`{"name": 6, "cniVersion": 1.0}`:        {"", "", false, false},
	} {
		d := open(t, conf)
		name, named := d.Name()
		version, dated := d.CNIVersion()
		if name != want.name || version != want.version || named != want.named || dated != want.dated {
			t.Errorf("%s: name %q (%t), version %q (%t)", conf, name, named, version, dated)
		}
	}
	if got := open(t, `{"prevResult": {"ips": []}}`).PrevResult(); string(got) != `{"ips": []}` {
		t.Errorf("prevResult %s", got)
	}
}

func TestReleaseReadsWhatItCan(t *testing.T) {
	tests := map[string]netconf.Release{
		`{}`:                             {AgentSocket: "/run/agent.sock", Registered: true},
		`{"name": "n6", "type": "x"}`:    {Name: "n6", AgentSocket: "/run/agent.sock", Registered: true},
		`{"name": "n6", "ipam": 5}`:      {Name: "n6", AgentSocket: "/run/agent.sock", Registered: true},
		vpcipam(`, "agentSocket": "/a"`): {Name: "n6", IPAMType: "vpcipam", AgentSocket: "/a", Registered: true},
		vpcipam(`, "agentSocket": "a"`):  {Name: "n6", IPAMType: "vpcipam", AgentSocket: "/run/agent.sock", Registered: true},
		vpcipvlan(`, "mtu": "?", "ipam": {"type": "static", "agentSocket": "/a"}`): {Name: "n6", IPAMType: "static", AgentSocket: "/run/agent.sock", Registered: true},
		vpcipvlan(`, "register": false, "ipam": {"type": "static"}`):               {Name: "n6", IPAMType: "static", AgentSocket: "/run/agent.sock"},
		vpcipvlan(`, "register": "no", "ipam": {"type": "static"}`):                {Name: "n6", IPAMType: "static", AgentSocket: "/run/agent.sock", Registered: true},
		vpcipvlan(`, "register": false, "ipam": {"type": "vpcipam"}`):              {Name: "n6", IPAMType: "vpcipam", AgentSocket: "/run/agent.sock", Registered: true},
	}
	for conf, want := range tests {
		if got := open(t, conf).Release(env); got != want {
			t.Errorf("%s: got %+v, want %+v", conf, got, want)
		}
	}
}
