// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

func vars(pairs ...string) func(string) string {
	m := map[string]string{"Owner": "group-1"}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

func TestParse(t *testing.T) {
	sample := func(subnet, group string, how Addressing) Interface {
		return Interface{Subnet: eni.SubnetID(subnet), Groups: []eni.GroupID{eni.GroupID(group)}, Addressing: how, DeleteOnTermination: true}
	}
	tests := map[string]struct {
		vars []string
		want Config
	}{
		"as the sample for one zone has it": {
			[]string{"SubnetIds", "subnet-1, subnet-2", "SecGroupIds", "sg-1", "useStaticIPs", "True", "ENITags", "a=b,c=d=e"},
			Config{Tags: map[string]string{"a": "b", "c": "d=e"}, Interfaces: []Interface{sample("subnet-1", "sg-1", Start), sample("subnet-2", "sg-1", Start)}},
		},
		"as the sample for managed node groups has it": {
			[]string{"Az1SubnetIds", "subnet-1,subnet-2", "Az2SubnetIds", "subnet-3,", "SecGroupIds", "sg-1,sg-2,sg-3", "useIPsFromStartOfSubnet", "false"},
			Config{Tags: map[string]string{}, Interfaces: []Interface{sample("subnet-1", "sg-1", DHCP), sample("subnet-2", "sg-2", DHCP), sample("subnet-3", "sg-3", DHCP)}},
		},
		"all there is": {
			[]string{
				"ClusterName", "blue", "Stock", "14", "SourceDestCheck", "true", "DeleteOnTermination", "false",
				"Interfaces", `[{"subnet": "subnet-1", "networkCard": "every", "deviceIndex": 1, "securityGroups": ["sg-1", "sg-2"], "stock": 0},
					{"subnetTags": {"a": "b"}, "deviceIndex": "last"},
					{"subnet": "subnet-2", "networkCard": 1, "addresses": ["10.0.0.20"], "sourceDestCheck": false, "deleteOnTermination": true}]`,
			},
			Config{Tags: map[string]string{"kubernetes.io/cluster/blue": "owned"}, Interfaces: []Interface{
				{Subnet: "subnet-1", Groups: []eni.GroupID{"sg-1", "sg-2"}, EveryCard: true, Index: 1, Addressing: DHCP, SourceDestCheck: true},
				{SubnetTags: map[string]string{"a": "b"}, Last: true, Addressing: DHCP, Stock: 14, SourceDestCheck: true},
				{Subnet: "subnet-2", Card: 1, Addressing: Fixed, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.20")}, Stock: 14, DeleteOnTermination: true},
			}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(vars(tt.vars...))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Owner = "group-1"
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParseReportsEverything(t *testing.T) {
	_, err := Parse(vars("Owner", "", "SubnetIds", "subnet-1,net-2,subnet-1", "SecGroupIds", "sg-1,group-2", "useStaticIPs", "perhaps",
		"ENITags", "novalue,multus-vpc.io/owner=me,aws:x=y", "Stock", "many"))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, s := range []string{
		"owner: is missing", `interfaces[1].subnet: "net-2"`, "SubnetIds: subnet-1 is there twice", "SecGroupIds: 2 security groups for 3 subnets",
		`interfaces[1].securityGroups: "group-2"`, `useStaticIPs: "perhaps"`, `ENITags: "novalue"`, "is set by multus-vpc itself", "start with aws:",
		`Stock: "many"`,
	} {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("does not say %q:\n%v", s, err)
		}
	}
	for text, says := range map[string]string{
		`{}`:                                  "want a list",
		`[]`:                                  "interfaces: none is given",
		`[{"subnet": "subnet-1", "card": 1}]`: `[0]: json: unknown field "card"`,
		`[{"subnet": "subnet-1", "deviceIndex": "first"}]`:                            `neither a number nor "last"`,
		`[{"subnet": "subnet-1", "subnetTags": {"a": "b"}}]`:                          "subnetTags: cannot stand with subnet subnet-1",
		`[{"subnetTags": {}}]`:                                                        `subnet: "" is no subnet ID`,
		`[{"subnet": "subnet-1", "networkCard": "all"}]`:                              `neither a number nor "every"`,
		`[{"subnet": "subnet-1", "addressing": "static"}]`:                            `"static" is not one of dhcp, start, fixed`,
		`[{"subnet": "subnet-1", "addressing": "fixed"}]`:                             "addresses: are missing",
		`[{"subnet": "subnet-1", "addresses": ["fd00::1"]}]`:                          "is no IPv4 address",
		`[{"subnet": "subnet-1", "deviceIndex": -1, "stock": 64, "networkCard": -1}]`: "stock: must be 0 to 63",
	} {
		if _, err := Parse(vars("Interfaces", text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", text, err, says)
		}
	}
	for _, owner := range []string{"*", "group-?", `a\b`} {
		if _, err := Parse(vars("Owner", owner, "SubnetIds", "subnet-1")); err == nil || !strings.Contains(err.Error(), "owner: must not contain") {
			t.Errorf("owner %q: %v", owner, err)
		}
	}
	if _, err := Parse(vars("Interfaces", `[{"subnet": "subnet-1"}]`, "SubnetIds", "subnet-1")); err == nil || !strings.Contains(err.Error(), "SubnetIds: cannot stand with Interfaces") {
		t.Errorf("both ways at once: %v", err)
	}
}

// FuzzParse: no input makes it panic, and what it accepts is valid.
func FuzzParse(f *testing.F) {
	f.Add("subnet-1,subnet-2", "sg-1", "a=b", "")
	f.Add("", "", "", `[{"subnet":"subnet-1","networkCard":"every"}]`)
	f.Fuzz(func(t *testing.T, subnets, groups, tags, interfaces string) {
		cfg, err := Parse(vars(VarSubnetIDs, subnets, VarSecurityGroupIDs, groups, VarTags, tags, VarInterfaces, interfaces))
		if err == nil && cfg.Validate() != nil {
			t.Errorf("accepted %+v: %v", cfg, cfg.Validate())
		}
	})
}
