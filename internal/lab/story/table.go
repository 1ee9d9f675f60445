// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package story

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// books are what each agent says of each ENI's addresses, by ENI ID.
type books map[string]map[netip.Addr]agentapi.AddressStatus

// table is step 6: EC2, the agents and the pods' namespaces side by side.
func (s *story) table(ctx context.Context) {
	t := s.teller
	t.Step(6, "Every ENI and address")
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var agents books
	t.Check("EC2 and the agents agree about every address", func() (string, error) {
		n := 0
		err := until(ctx, func() (err error) {
			if agents, err = s.readBooks(ctx); err == nil {
				n, err = s.agree(agents)
			}
			return err
		})
		return fmt.Sprintf("%d addresses on pool ENIs", n), err
	})
	t.Check("the agents and the pods' namespaces agree about who holds which", func() (string, error) {
		return s.held(agents)
	})
	s.print(agents)
}

// readBooks asks every agent that runs.
func (s *story) readBooks(ctx context.Context) (books, error) {
	b := books{}
	err := s.eachNode(func(n *node) error {
		if n.agent == nil {
			return nil
		}
		st, err := n.status(ctx)
		if err != nil {
			return err
		}
		for _, e := range st.ENIs {
			if !e.Managed {
				continue
			}
			b[string(e.ID)] = map[netip.Addr]agentapi.AddressStatus{}
			for _, a := range e.Addresses {
				b[string(e.ID)][a.Addr] = a
			}
		}
		return nil
	})
	return b, err
}

// agree compares EC2's newest state with the agents' books, and counts the addresses.
func (s *story) agree(agents books) (int, error) {
	view, n := s.lab.Cloud.View(time.Now()), 0
	for id, known := range agents {
		e, ok := view.ENI(id)
		if !ok {
			return 0, fmt.Errorf("EC2 does not know %s", id)
		}
		for _, a := range e.Secondary {
			if _, ok := known[a]; !ok {
				return 0, fmt.Errorf("the agent does not know %s on %s", a, id)
			}
		}
		for a, st := range known {
			if st.State == "foreign" { // a pod's own container came and went; an agent looks at its ENIs each minute
				continue
			}
			if a != e.Primary && !slices.Contains(e.Secondary, a) {
				return 0, fmt.Errorf("EC2 does not have %s on %s", a, id)
			}
		}
		n += len(e.Secondary)
	}
	if n == 0 {
		return 0, fmt.Errorf("no addresses on %d pool ENIs", len(agents))
	}
	return n, nil
}

// held compares the addresses that agents hold for pods with what the pods' namespaces carry.
func (s *story) held(agents books) (string, error) {
	var have, want []string
	for _, known := range agents {
		for a, st := range known {
			if st.State == "held" {
				have = append(have, fmt.Sprintf("%s by %s", a, st.Holder))
			}
		}
	}
	for _, p := range s.pods {
		if n := s.nodes[p.worker]; n == nil || n.agent == nil {
			continue
		}
		for _, a := range p.nets {
			if a.name == "" { // not through the suite
				continue
			}
			look, err := pod.LookAt(p.Netns)
			if err != nil {
				return "", err
			}
			if !slices.ContainsFunc(look.Addresses, func(l string) bool { return strings.HasPrefix(l, a.ifName+" "+a.addr.String()+"/") }) {
				return "", fmt.Errorf("pod %s carries %q, not %s", p.name, look.Addresses, a.addr)
			}
			want = append(want, fmt.Sprintf("%s by %s/%s", a.addr, p.Name, a.ifName))
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) || len(want) == 0 {
		return "", fmt.Errorf("agents hold %q, pods carry %q", have, want)
	}
	return fmt.Sprintf("%d pods", len(want)), nil
}

// print draws the table.
func (s *story) print(agents books) {
	view := s.lab.Cloud.View(time.Now())
	subnets := map[string]string{}
	for name, id := range s.lab.Subnets {
		subnets[id] = name
	}
	rows := [][]string{{"INSTANCE", "ENI", "INDEX", "SUBNET", "PRIMARY", "STATE", "ADDRESSES"}}
	row := func(cells ...string) { rows = append(rows, cells) }
	for _, i := range slices.SortedFunc(slices.Values(view.Instances()), func(a, b vpc.Instance) int {
		return strings.Compare(a.Name(), b.Name())
	}) {
		enis := view.ENIs(i.ID)
		if len(enis) == 0 {
			row(i.Name(), "–", "", "", "", i.State, "")
		}
		for _, e := range enis {
			start := []string{i.Name(), e.ID, fmt.Sprint(e.Attachment.DeviceIndex), subnets[e.SubnetID], e.Primary.String()}
			for _, line := range s.states(e, agents[e.ID]) {
				row(append(start, line...)...)
				start = []string{"", "", "", "", ""}
			}
		}
	}
	s.teller.Table(rows)
}

// states groups an ENI's secondary addresses by what the agent says of them.
func (s *story) states(e vpc.ENI, known map[netip.Addr]agentapi.AddressStatus) [][]string {
	names := map[string]string{}
	for _, p := range s.pods {
		names[p.Name] = p.name
	}
	groups := map[string][]netip.Addr{}
	for _, a := range e.Secondary {
		state := cmp.Or(known[a].State, "unknown")
		if id, _, ok := strings.Cut(known[a].Holder, "/"); ok && state == "held" {
			state = "held by pod " + names[id]
		}
		groups[state] = append(groups[state], a)
	}
	var lines [][]string
	for _, state := range slices.Sorted(maps.Keys(groups)) {
		lines = append(lines, []string{state, ranges(groups[state])})
	}
	if len(lines) == 0 {
		lines = [][]string{{"–", ""}}
	}
	return lines
}

// ranges prints addresses with runs drawn together: "10.10.1.64–71, 10.10.1.80".
func ranges(addrs []netip.Addr) string {
	slices.SortFunc(addrs, netip.Addr.Compare)
	var parts []string
	for i := 0; i < len(addrs); {
		j := i
		for j+1 < len(addrs) && addrs[j].Next() == addrs[j+1] && lastPart(addrs[j+1]) != "0" {
			j++
		}
		part := addrs[i].String()
		if j > i {
			part += "–" + lastPart(addrs[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

// lastPart is the last octet of an IPv4 address.
func lastPart(a netip.Addr) string {
	s := a.String()
	return s[strings.LastIndexByte(s, '.')+1:]
}
