// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package migrate_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/migrate"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

var env = netconf.Env{AgentSocket: "/run/multus-vpc/agent/agent.sock"}

// ipvlan is a configuration of upstream's plugin on eth1 with this ipam object.
func ipvlan(ipam string) string {
	return `{"cniVersion": "0.3.1", "name": "n", "type": "ipvlan", "master": "eth1", "mode": "l2", "ipam": ` + ipam + `}`
}

// onENI1 is what becomes of it, with that ipam object.
func onENI1(ipam string) string {
	return `{"cniVersion": "0.3.1", "name": "n", "type": "vpcipvlan", "eni": {"deviceIndex": 1}, "ipam": ` + ipam + `}`
}

const (
	guessed  = `master: "eth1" is taken for the ENI at device index 1`
	anyRange = "range: missing: addresses come from any explicit reservation"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in      string
		options migrate.Options
		want    string
		notes   []string // parts, each of another note; beside that of eth1
	}{
		"whereabouts, from and to": {
			in:    ipvlan(`{"type": "whereabouts", "range": "10.10.1.80-10.10.1.82/24", "gateway": "10.10.1.1", "routes": [{"dst": "0.0.0.0/0"}]}`),
			want:  onENI1(`{"type": "vpcipam", "ranges": ["10.10.1.80-10.10.1.82"], "gateway": "10.10.1.1", "routes": [{"dst": "0.0.0.0/0"}]}`),
			notes: []string{"ranges: 10.10.1.80-10.10.1.82 needs a subnet CIDR reservation"},
		},
		"whereabouts, a CIDR in which pods are": {
			in:    ipvlan(`{"type": "whereabouts", "range": "10.10.1.64/26", "range_start": "10.10.1.70", "range_end": "10.10.1.90", "exclude": ["10.10.1.81/28", "10.10.1.75/32"]}`),
			want:  onENI1(`{"type": "vpcipam", "ranges": ["10.10.1.70-10.10.1.90"], "exclude": ["10.10.1.80/28", "10.10.1.75"]}`),
			notes: []string{"needs a subnet CIDR reservation"},
		},
		"whereabouts, two families": {
			in:    ipvlan(`{"type": "whereabouts", "ipRanges": [{"range": "10.10.1.64/26"}, {"range": "2001:db8:1::/64", "exclude": ["2001:db8:1::/120"]}]}`),
			want:  onENI1(`{"type": "vpcipam", "families": ["ipv4", "ipv6"], "ranges": ["10.10.1.64/26", "2001:db8:1::/64"], "exclude": ["2001:db8:1::/120"]}`),
			notes: []string{"10.10.1.64/26 needs", "2001:db8:1::/64 needs"},
		},
		"whereabouts, an old range beside new ones": {
			in:    ipvlan(`{"type": "whereabouts", "range": "10.10.1.64/26", "ipRanges": [{"range": "10.10.1.128/26"}]}`),
			want:  onENI1(`{"type": "vpcipam", "ranges": ["10.10.1.64/26", "10.10.1.128/26"]}`),
			notes: []string{"an interface has one address of a family now", "10.10.1.64/26 needs", "10.10.1.128/26 needs"},
		},
		"whereabouts, IPv6 alone": {
			in:    ipvlan(`{"type": "whereabouts", "range": "2001:db8:1::10-2001:db8:1::1f/64"}`),
			want:  onENI1(`{"type": "vpcipam", "families": ["ipv6"], "ranges": ["2001:db8:1::10/124"]}`),
			notes: []string{"needs"},
		},
		"whereabouts' own affairs": {
			in: ipvlan(`{"type": "whereabouts", "range": "10.10.1.64/26", "log_file": "/tmp/w.log", "kubernetes": {"kubeconfig": "/k"}, "network_name": "a",
				"enable_overlapping_ranges": false, "configuration_path": "/etc/w.conf", "sleep_for_race": 1, "dns": {"nameservers": ["10.10.0.2"]}}`),
			want: onENI1(`{"type": "vpcipam", "ranges": ["10.10.1.64/26"], "dns": {"nameservers": ["10.10.0.2"]}}`),
			notes: []string{
				"needs", `log_file: "/tmp/w.log" is not carried over: it is about how that plugin works`, "kubernetes: ", "network_name: ",
				"enable_overlapping_ranges: false is not carried over: EC2 gives no address twice", "configuration_path: ", "sleep_for_race: ",
			},
		},
		"whereabouts, its range in a file": {
			in:    ipvlan(`{"type": "whereabouts", "exclude": ["10.10.1.64/28"]}`),
			want:  onENI1(`{"type": "vpcipam", "exclude": ["10.10.1.64/28"]}`),
			notes: []string{anyRange},
		},
		"whereabouts, and a fixed address": {
			in:    ipvlan(`{"type": "whereabouts", "range": "10.10.1.64/26", "addresses": [{"address": "10.10.1.70/24", "gateway": "10.10.1.1"}]}`),
			want:  onENI1(`{"type": "vpcipam", "ranges": ["10.10.1.64/26"], "addresses": ["10.10.1.70"], "gateway": "10.10.1.1"}`),
			notes: []string{"every pod of this network asks for the same address", "needs"},
		},
		"host-local of old": {
			in:    ipvlan(`{"type": "host-local", "subnet": "10.10.1.0/24", "rangeStart": "10.10.1.200", "rangeEnd": "10.10.1.207", "gateway": "10.10.1.1", "dataDir": "/run/x", "resolvConf": "/etc/r"}`),
			want:  onENI1(`{"type": "vpcipam", "ranges": ["10.10.1.200/29"], "gateway": "10.10.1.1"}`),
			notes: []string{"host-local gave each worker the whole range", "needs", "dataDir: ", "resolvConf: \"/etc/r\" is not carried over: name servers are named in dns"},
		},
		"host-local, alternatives and families": {
			in: ipvlan(`{"type": "host-local", "ranges": [[{"subnet": "10.10.1.0/26"}, {"subnet": "10.10.1.128/26", "gateway": "10.10.1.129"}], [{"subnet": "2001:db8:1::/64"}]],
				"routes": [{"dst": "10.0.0.1/8", "gw": "10.10.1.1", "mtu": 1400}, {"dst": "::/0"}]}`),
			want: onENI1(`{"type": "vpcipam", "families": ["ipv4", "ipv6"], "ranges": ["10.10.1.0/26", "10.10.1.128/26", "2001:db8:1::/64"], "gateway": "10.10.1.129",
				"routes": [{"dst": "10.0.0.0/8", "gw": "10.10.1.1", "mtu": 1400}, {"dst": "::/0"}]}`),
			notes: []string{"ranges: 10.10.1.0/26, 10.10.1.128/26, 2001:db8:1::/64: an interface has one", "host-local gave", "10.10.1.0/26 needs", "10.10.1.128/26 needs", "2001:db8:1::/64 needs"},
		},
		"host-local, two gateways": {
			in:    ipvlan(`{"type": "host-local", "ranges": [[{"subnet": "10.10.1.0/26", "gateway": "10.10.1.1"}, {"subnet": "10.10.1.128/26", "gateway": "10.10.1.129"}]]}`),
			want:  onENI1(`{"type": "vpcipam", "ranges": ["10.10.1.0/26", "10.10.1.128/26"], "gateway": "10.10.1.1"}`),
			notes: []string{"gateway: 10.10.1.129 is not carried over", "host-local gave", "10.10.1.0/26 needs", "10.10.1.128/26 needs"},
		},
		"static": {
			in: ipvlan(`{"type": "static", "addresses": [{"address": "10.10.1.80/24", "gateway": "10.10.1.1"}, {"address": "2001:db8:1::80/64"}, {"address": "10.10.1.81/24"}],
				"routes": [], "dns": {"domain": "example.com"}}`),
			want: onENI1(`{"type": "vpcipam", "families": ["ipv4", "ipv6"], "addresses": ["10.10.1.80", "2001:db8:1::80"], "gateway": "10.10.1.1", "routes": [], "dns": {"domain": "example.com"}}`),
			notes: []string{
				"addresses[2].address: 10.10.1.81 is not carried over", "every pod of this network asks",
			},
		},
		"static, addresses of the pods": {
			in:    `{"cniVersion": "1.0.0", "name": "n", "type": "ipvlan", "master": "eth1", "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}}`,
			want:  `{"cniVersion": "1.0.0", "name": "n", "type": "vpcipvlan", "eni": {"deviceIndex": 1}, "capabilities": {"ips": true}, "ipam": {"type": "vpcipam"}}`,
			notes: []string{"capabilities.mac: is not carried over", "pods that ask for an address get it"},
		},
		"what the other family's address would need": {
			in:    ipvlan(`{"type": "whereabouts", "range": "10.10.1.64/26", "routes": [{"dst": "::/0"}, {"dst": "10.9.0.0/16", "metric": 1, "gw": ""}]}`),
			want:  onENI1(`{"type": "vpcipam", "ranges": ["10.10.1.64/26"], "routes": [{"dst": "10.9.0.0/16"}]}`),
			notes: []string{"needs", "routes[0]: ::/0 is not carried over: the interface has no ipv6 address", "routes[1].metric: 1 is not"},
		},
		"the IPAM plugin is kept": {
			in:      ipvlan(`{"type": "whereabouts", "range": "10.10.1.80-10.10.1.82/24", "log_file": "/l"}`),
			options: migrate.Options{KeepIPAM: true},
			want:    strings.Replace(onENI1(`{"type": "whereabouts", "range": "10.10.1.80-10.10.1.82/24", "log_file": "/l"}`), `"ipam"`, `"register": true, "ipam"`, 1),
		},
		"an unknown one is kept too": {
			in:      ipvlan(`{"type": "ours", "a": 1}`),
			options: migrate.Options{KeepIPAM: true},
			want:    strings.Replace(onENI1(`{"type": "ours", "a": 1}`), `"ipam"`, `"register": true, "ipam"`, 1),
		},
		"which ENI is said": {
			in:      strings.Replace(ipvlan(`{"type": "static"}`), "eth1", "eth0", 1),
			options: migrate.Options{ENI: json.RawMessage(`{"subnetTags": {"multus": "1"}}`)},
			want:    `{"cniVersion": "0.3.1", "name": "n", "type": "vpcipvlan", "eni": {"subnetTags": {"multus": "1"}}, "ipam": {"type": "vpcipam"}}`,
			notes:   []string{"pods that ask"},
		},
		"a link by its slot": {
			in:    strings.Replace(ipvlan(`{"type": "static"}`), "eth1", "ens7", 1),
			want:  strings.Replace(onENI1(`{"type": "vpcipam"}`), "1}", "2}", 1),
			notes: []string{`master: "ens7" is taken for the ENI at device index 2`, "pods that ask"},
		},
		"a link that tells nothing": {
			in:    strings.Replace(ipvlan(`{"type": "static"}`), "eth1", "enp39s0", 1),
			want:  strings.Replace(onENI1(`{"type": "vpcipam"}`), `"eni": {"deviceIndex": 1}`, `"master": "enp39s0"`, 1),
			notes: []string{`master: "enp39s0" tells no device index, and is kept`, "pods that ask"},
		},
		"no link": {
			in:    `{"cniVersion": "1.1.0", "name": "n", "type": "ipvlan", "ipam": {"type": "static"}}`,
			want:  `{"cniVersion": "1.1.0", "name": "n", "type": "vpcipvlan", "ipam": {"type": "vpcipam"}}`,
			notes: []string{"master: missing", "pods that ask"},
		},
		"settings": {
			in: `{"type": "ipvlan", "master": "eth1", "mode": "l3", "mtu": 1500, "linkInContainer": true, "isGateway": true, "dns": {"search": ["a.b"]}, "args": {"cni": {"ips": ["10.10.1.80"]}},
				"prevResult": {}, "runtimeConfig": {}, "ipam": {"type": "static"}}`,
			want: `{"cniVersion": "1.0.0", "name": "net", "type": "vpcipvlan", "eni": {"deviceIndex": 1}, "args": {"cni": {"ips": ["10.10.1.80"]}}, "dns": {"search": ["a.b"]}, "mtu": 1500, "ipam": {"type": "vpcipam"}}`,
			notes: []string{
				`cniVersion: "" is replaced by "1.0.0"`, `mode: "l3" is not carried over: only l2 works in a VPC`, "linkInContainer: is not", "isGateway: true is not carried over: vpcipvlan has no such key", "pods that ask",
			},
		},
		"a chain": {
			in: `{"cniVersion": "0.4.0", "name": "n", "disableCheck": true, "plugins": [{"type": "ipvlan", "master": "eth1", "capabilities": {"ips": true}, "ipam": {"type": "whereabouts", "range": "10.10.1.64/26"}},
				{"type": "tuning", "sysctl": {"net.core.somaxconn": "4096"}}, {"type": "sbr"}]}`,
			want: `{"cniVersion": "0.4.0", "name": "n", "disableCheck": true, "plugins": [{"type": "vpcipvlan", "eni": {"deviceIndex": 1}, "capabilities": {"ips": true}, "ipam": {"type": "vpcipam", "ranges": ["10.10.1.64/26"]}},
				{"type": "tuning", "sysctl": {"net.core.somaxconn": "4096"}}, {"type": "sbr"}]}`,
			notes: []string{"plugins[0].ipam.ranges: 10.10.1.64/26 needs", "plugins[2]: sbr is kept, and no longer needed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := migrate.Config([]byte(tc.in), "net", tc.options)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := canonical(t, string(r.Config)), canonical(t, tc.want); got != want {
				t.Errorf("got\n%s\nwant\n%s", r.Config, want)
			}
			if !strings.Contains(tc.in, "eth1") || len(tc.options.ENI) > 0 {
				wantNotes(t, r.Notes, tc.notes)
			} else {
				at := ""
				if strings.Contains(tc.in, "plugins") {
					at = "plugins[0]."
				}
				wantNotes(t, r.Notes, append(tc.notes, at+guessed))
			}
			accepted(t, r.Config)
			again, err := migrate.Config(r.Config, "net", tc.options)
			if err != nil || !again.Same || string(again.Config) != string(r.Config) {
				t.Errorf("a second time: %+v, %v", again, err)
			}
		})
	}
}

// canonical is JSON in one form; the order of keys does not count.
func canonical(t *testing.T, s string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v\n%s", err, s)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// wantNotes demands notes that have these parts, and no others.
func wantNotes(t *testing.T, got, want []string) {
	t.Helper()
	left := slices.Clone(got)
	for _, part := range want {
		i := slices.IndexFunc(left, func(note string) bool { return strings.Contains(note, part) })
		if i < 0 {
			t.Errorf("no note %q", part)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	if len(left) > 0 {
		t.Errorf("more notes:\n%s", strings.Join(left, "\n"))
	}
}

// accepted demands that the plugin takes the configuration.
func accepted(t interface {
	Helper()
	Fatalf(string, ...any)
}, config []byte,
) netconf.VPCIpvlan {
	t.Helper()
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	err := json.Unmarshal(config, &list)
	if len(list.Plugins) > 0 {
		list.Plugins[0]["name"], list.Plugins[0]["cniVersion"] = list.Name, list.CNIVersion // as libcni does
		config, err = json.Marshal(list.Plugins[0])
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, config)
	}
	c, err := netconf.ParseVPCIpvlan(config, env)
	if err != nil {
		t.Fatalf("the plugin refuses it: %v\n%s", err, config)
	}
	if c.Name == "" || c.CNIVersion == "" {
		t.Fatalf("it has no name or no version:\n%s", config)
	}
	return c
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`[`:                                 "the configuration is no JSON object",
		`{"type": 5}`:                       "type: 5 is no string",
		`{"ipam": "x"}`:                     "ipam is no JSON object",
		`{"plugins": 1}`:                    "plugins: 1 is no list",
		`{"plugins": []}`:                   "plugins: is empty",
		`{"plugins": [{"type": "tuning"}]}`: `plugins[0].type: "tuning" is no ipvlan`,
		`{"type": "macvlan", "ipam": {}}`:   "type: macvlan gives each pod a MAC of its own, whose frames a VPC drops",
		`{"type": "bridge"}`:                `type: "bridge" is no ipvlan`,
		`{"type": "ipvlan"}`:                "ipam.type: missing",
		ipvlan(`{"type": "dhcp"}`):          `ipam.type: "dhcp" is not known (whereabouts, host-local and static are); --keep-ipam keeps any`,
		ipvlan(`{"type": "whereabouts", "range": "10.10.1.80-10.10.1.82"}`):                                          "ipam.range: netip.ParsePrefix",
		ipvlan(`{"type": "whereabouts", "range": "10.10.1.0/24", "range_start": "10.10.2.1"}`):                       "ipam.range: 10.10.2.1 does not lie in 10.10.1.0/24",
		ipvlan(`{"type": "whereabouts", "range": "10.10.1.9-10.10.1.8/24"}`):                                         "ipam.range: 10.10.1.9 comes after 10.10.1.8",
		ipvlan(`{"type": "whereabouts", "range": 1}`):                                                                "ipam.range: 1 is no string",
		ipvlan(`{"type": "whereabouts", "ipRanges": [1]}`):                                                           "ipam.ipRanges[0] is no JSON object",
		ipvlan(`{"type": "whereabouts", "range": "10.10.1.0/24", "exclude": ["x"]}`):                                 `ipam.exclude[0]: "x" is neither`,
		ipvlan(`{"type": "whereabouts", "range": "10.10.1.0/24", "gateway": "x"}`):                                   "ipam.gateway: ParseAddr",
		ipvlan(`{"type": "whereabouts", "range": "10.10.1.0/24", "routes": [{}]}`):                                   "ipam.routes[0].dst: ",
		ipvlan(`{"type": "whereabouts", "range": "10.10.1.0/24", "routes": [{"dst": "10.0.0.0/8", "gw": "::1:2"}]}`): "vpcipvlan would refuse what comes out: ipam.routes[0].gw: ::1:2 is not of the family",
		ipvlan(`{"type": "host-local"}`):                                                                             "ipam.ranges: missing",
		ipvlan(`{"type": "host-local", "ranges": [[{"subnet": "x"}]]}`):                                              "ipam.ranges[0][0].subnet: ",
		ipvlan(`{"type": "static", "addresses": [{"address": "x"}]}`):                                                "ipam.addresses[0].address: ",
		strings.Replace(ipvlan(`{"type": "static"}`), "eth1", "eth0", 1):                                             `master: "eth0" is the worker's primary ENI`,
		strings.Replace(ipvlan(`{"type": "static"}`), "eth1", "ens5", 1):                                             `master: "ens5" is the worker's primary ENI`,
		strings.Replace(ipvlan(`{"type": "static"}`), "eth1", "eth1.100", 1):                                         `master: "eth1.100" is a VLAN's link`,
		`{"plugins": [` + ipvlan(`{"type": "static"}`) + `, {"type": "ipvlan"}]}`:                                    "plugins[1]: ipvlan stands after another plugin",
		`{"name": "a/b?", "type": "ipvlan", "master": "eth1", "mtu": 9002, "ipam": {"type": "static"}}`:              "mtu: 9002 is not between",
	} {
		_, err := migrate.Config([]byte(in), "net", migrate.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
	for in, want := range map[string]string{
		ipvlan(`{"type": "dhcp"}`): "ipam.type: dhcp tells clients apart by their MAC",
		ipvlan(`{}`):               "ipam.type: missing; without addresses there is nothing to register",
	} {
		if _, err := migrate.Config([]byte(in), "net", migrate.Options{KeepIPAM: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
	if _, err := migrate.Config([]byte(ipvlan(`{"type": "static"}`)), "net", migrate.Options{ENI: json.RawMessage(`{"index": 1}`)}); err == nil || !strings.Contains(err.Error(), "eni.index: unknown key") {
		t.Errorf("an eni object that the plugin refuses: %v", err)
	}
}

// TestLayout: what is printed is for people.
func TestLayout(t *testing.T) {
	t.Parallel()
	r, err := migrate.Config([]byte(ipvlan(`{"type": "whereabouts", "range": "10.10.1.80-10.10.1.82/24", "dns": {"domain": "<a & b>"}, "routes": [
		{"dst": "10.1.0.0/16", "gw": "10.10.1.1"}, {"dst": "10.2.0.0/16", "gw": "10.10.1.1"}, {"dst": "10.3.0.0/16", "gw": "10.10.1.1"}]}`)), "", migrate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "cniVersion": "0.3.1",
  "name": "n",
  "type": "vpcipvlan",
  "eni": {"deviceIndex": 1},
  "ipam": {
    "type": "vpcipam",
    "ranges": ["10.10.1.80-10.10.1.82"],
    "routes": [
      {"dst": "10.1.0.0/16", "gw": "10.10.1.1"},
      {"dst": "10.2.0.0/16", "gw": "10.10.1.1"},
      {"dst": "10.3.0.0/16", "gw": "10.10.1.1"}
    ],
    "dns": {"domain": "<a & b>"}
  }
}`
	if string(r.Config) != want {
		t.Errorf("got\n%s\nwant\n%s", r.Config, want)
	}
}

func ExampleConfig() {
	r, err := migrate.Config([]byte(`{"type": "ipvlan", "master": "eth2", "ipam": {"type": "host-local", "subnet": "10.10.2.64/26"}}`), "n2", migrate.Options{KeepIPAM: true})
	fmt.Println(string(r.Config), err)
	// Output:
	// {
	//   "cniVersion": "1.0.0",
	//   "name": "n2",
	//   "type": "vpcipvlan",
	//   "eni": {"deviceIndex": 2},
	//   "register": true,
	//   "ipam": {"type": "host-local", "subnet": "10.10.2.64/26"}
	// } <nil>
}
