// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

func TestRequestedAddressesComeFromTheFirstPlaceThatHasSome(t *testing.T) {
	const (
		own    = `, "addresses": ["10.10.1.4"]`
		args   = `, "args": {"cni": {"ips": ["10.10.1.2/24"]}}`
		config = `, "runtimeConfig": {"ips": ["10.10.1.1/24", "2001:db8::1"]}`
		legacy = "IgnoreUnknown=1;IP=10.10.1.3/24, 2001:db8::3;K8S_POD_NAME=a"
	)
	tests := []struct {
		name, ipam, top, args string
		want                  []string
		families              []string
	}{
		{"nobody", "", "", "", nil, []string{"ipv4"}},
		{"all", own, args + config, legacy, []string{"10.10.1.1", "2001:db8::1"}, []string{"ipv4", "ipv6"}},
		{"all but runtimeConfig", own, args, legacy, []string{"10.10.1.2"}, []string{"ipv4"}},
		{"an empty list is none", own, args + `, "runtimeConfig": {"ips": []}`, legacy, []string{"10.10.1.2"}, []string{"ipv4"}},
		{"CNI_ARGS and the configuration", own, "", legacy, []string{"10.10.1.3", "2001:db8::3"}, []string{"ipv4", "ipv6"}},
		{"the configuration alone", own, "", "", []string{"10.10.1.4"}, []string{"ipv4"}},
		{"IPv6 alone", `, "addresses": ["2001:db8::4/64"]`, "", "", []string{"2001:db8::4"}, []string{"ipv6"}},
		{"fewer families than configured", `, "families": ["ipv4", "ipv6"]`, args, "", []string{"10.10.1.2"}, []string{"ipv4"}},
		{"outside of ranges", `, "ranges": ["10.10.1.64/28"], "exclude": ["10.10.1.0/28"]`, args, "", []string{"10.10.1.2"}, []string{"ipv4"}},
		{"IPv4 in IPv6 form", `, "addresses": ["::ffff:10.10.1.4"]`, "", "", []string{"10.10.1.4"}, []string{"ipv4"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf := vpcipvlan(tt.top + `, "ipam": {"type": "vpcipam"` + tt.ipam + `}`)
			got, err := netconf.ParseVPCIpvlan([]byte(conf), netconf.Env{AgentSocket: "/a", Args: tt.args})
			if err != nil {
				t.Fatal(err)
			}
			var requested []string
			for _, a := range got.IPAM.Requested {
				requested = append(requested, a.String())
			}
			if diff := cmp.Diff(tt.want, requested); diff != "" {
				t.Errorf("requested (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.families, got.IPAM.Families); diff != "" {
				t.Errorf("families (-want +got):\n%s", diff)
			}
		})
	}
}

// A place that does not count is not judged, unless it is the configuration itself.
func TestOnlyTheConfigurationIsJudgedInVain(t *testing.T) {
	const config = `, "runtimeConfig": {"ips": ["10.10.1.1"]}`
	bad := netconf.Env{AgentSocket: "/a", Args: "IP=nonsense"}
	if _, err := netconf.ParseVPCIpvlan([]byte(vpcipvlan(config+`, "ipam": {"type": "vpcipam"}`)), bad); err != nil {
		t.Errorf("CNI_ARGS IP was judged: %v", err)
	}
	_, err := netconf.ParseVPCIpvlan([]byte(vpcipvlan(config+`, "ipam": {"type": "vpcipam", "addresses": ["nonsense"]}`)), env)
	wantProblems(t, err, 7, []string{`ipam.addresses[0]: "nonsense"`})
}

func TestQueryHasAllThatIsAsked(t *testing.T) {
	got, err := netconf.ParseVPCIPAM([]byte(vpcipam(`, "families": ["ipv6"], "ranges": ["2001:db8::/80"], "exclude": ["2001:db8::1"],
		"reservationTags": {"a": "b"}, "sticky": {"statefulSet": "amf"}`)), env)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddr
	want := attachment.Query{
		Selector: eni.Selector{MAC: "0a:00:00:00:00:01"}, Families: []string{"ipv6"}, Source: "reservation",
		ReservationTags: map[string]string{"a": "b"}, Sticky: &attachment.Sticky{StatefulSet: "amf"},
		Ranges:  []attachment.Range{{From: address("2001:db8::"), To: address("2001:db8::ffff:ffff:ffff")}},
		Exclude: []attachment.Range{{From: address("2001:db8::1"), To: address("2001:db8::1")}},
	}
	if diff := cmp.Diff(want, got.IPAM.Query(eni.Selector{MAC: "0a:00:00:00:00:01"}), opts); diff != "" {
		t.Errorf("query (-want +got):\n%s", diff)
	}
}

func TestValidAttachmentsAreThoseOfEitherKey(t *testing.T) {
	const one, two = `[{"containerID": "c1", "ifname": "net1"}]`, `[{"containerID": "c2", "ifname": "net2"}]`
	c1, c2 := attachment.Key{ContainerID: "c1", IfName: "net1"}, attachment.Key{ContainerID: "c2", IfName: "net2"}
	for conf, want := range map[string][]attachment.Key{
		`{"cni.dev/valid-attachments": ` + one + `}`:                                     {c1},
		`{"cni.dev/attachments": ` + two + `}`:                                           {c2},
		`{"cni.dev/valid-attachments": ` + one + `, "cni.dev/attachments": ` + two + `}`: {c1, c2},
		`{"cni.dev/valid-attachments": null}`:                                            {},
		`{"cni.dev/attachments": []}`:                                                    {},
	} {
		got, err := open(t, conf).Valid()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: error %v (-want +got):\n%s", conf, err, diff)
		}
	}
}

func TestGCWithoutAListIsRefused(t *testing.T) {
	for conf, says := range map[string]string{
		`{}`:                          "cni.dev/valid-attachments: missing",
		`{"cni.dev/attachments": {}}`: "cni.dev/attachments: {} is not a list",
		`{"cni.dev/attachments": [{"containerID": "c1"}]}`: "cni.dev/attachments[0]: has no containerID or no ifname",
	} {
		_, err := open(t, conf).Valid()
		wantProblems(t, err, 7, []string{says})
	}
}
