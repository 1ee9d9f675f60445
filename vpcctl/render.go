// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// render is the status for people: what is wrong comes last, where a terminal shows it.
func render(s *agentapi.Status, colour bool) []byte {
	p := &page{colour: colour}
	p.title("Worker")
	p.table([]string{"INSTANCE", "TYPE", "AZ", "AGENT"}, [][]cell{
		cells(string(s.InstanceID), s.InstanceType, s.AZ, s.AgentVersion),
	})
	renderENIs(p, s)
	renderPrefixes(p, s)
	renderAttachments(p, s)
	if len(s.Problems) == 0 {
		p.title("Problems: none")
		return p.Bytes()
	}
	p.title("Problems: %d", len(s.Problems))
	for _, text := range s.Problems {
		p.put(cell{"  ! ", bad})
		p.put(cell{text, plain})
		p.WriteByte('\n')
	}
	p.WriteString("hint: the agent's log says since when; vpcctl status -o json lists every address with its state\n")
	return p.Bytes()
}

func renderENIs(p *page, s *agentapi.Status) {
	p.title("ENIs: %d", len(s.ENIs))
	if len(s.ENIs) == 0 {
		return
	}
	var rows [][]cell
	for _, e := range s.ENIs {
		count := map[string]int{}
		for _, a := range e.Addresses {
			count[a.State]++
		}
		row := cells(strconv.Itoa(e.NetworkCard), strconv.Itoa(e.DeviceIndex), string(e.ID), string(e.SubnetID))
		row = append(row, link(e), stock(e))
		row = append(row, cells(strconv.Itoa(e.Slots))...)
		for _, st := range shown {
			row = append(row, cells(strconv.Itoa(count[st.String()]))...)
			delete(count, st.String())
		}
		rows = append(rows, append(row, others(count)))
	}
	p.table([]string{"CARD", "INDEX", "ENI", "SUBNET", "LINK", "POOL", "SLOTS", "FREE", "HELD", "COOLING", "OTHER"}, rows)
}

// shown are the states that have a column; the rest is named in the last one.
var shown = [...]ownership.State{ownership.Free, ownership.Held, ownership.Cooling}

// link is the ENI's link on the host.
func link(e agentapi.ENIStatus) cell {
	switch {
	case e.Link.Name == "" && e.Active:
		return cell{none, bad} // pods cannot be attached
	case e.Link.Name == "":
		return cell{none, plain}
	case !e.Link.Up:
		return cell{e.Link.Name + " (down)", warn}
	}
	return cell{e.Link.Name, plain}
}

// stock is what the ENI is to the agent.
func stock(e agentapi.ENIStatus) cell {
	switch {
	case e.Active:
		return cell{"active", good}
	case e.Managed:
		return cell{"idle", plain} // until the first pod
	}
	return cell{none, plain}
}

// others names the addresses in states without a column, by their number.
func others(count map[string]int) cell {
	var parts []string
	for state, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, state))
	}
	if len(parts) == 0 {
		return cell{none, plain}
	}
	slices.SortFunc(parts, func(a, b string) int {
		_, a, _ = strings.Cut(a, " ")
		_, b, _ = strings.Cut(b, " ")
		return strings.Compare(a, b)
	})
	look := plain
	if count[ownership.Lost.String()] > 0 || count[ownership.Unknown.String()] > 0 {
		look = warn
	}
	return cell{strings.Join(parts, ", "), look}
}

func renderPrefixes(p *page, s *agentapi.Status) {
	var rows [][]cell
	for _, e := range s.ENIs {
		for _, x := range e.Prefixes {
			rows = append(rows, cells(string(e.ID), x.Prefix.String(), x.State, used(x)))
		}
	}
	if len(rows) > 0 {
		p.title("Prefixes: %d", len(rows))
		p.table([]string{"ENI", "PREFIX", "STATE", "USED"}, rows)
	}
}

// used says how full a prefix is, where it can be full: a /80 cannot.
func used(x agentapi.PrefixStatus) string {
	if x.Prefix.Addr().Is4() {
		return fmt.Sprintf("%d of %d", x.Used, 1<<(32-x.Prefix.Bits()))
	}
	return strconv.Itoa(x.Used)
}

func renderAttachments(p *page, s *agentapi.Status) {
	p.title("Attachments: %d", len(s.Attachments))
	if len(s.Attachments) == 0 {
		return
	}
	var rows [][]cell
	for _, h := range s.Attachments {
		pod := ""
		if h.Pod.Name != "" {
			pod = h.Pod.Namespace + "/" + h.Pod.Name
		}
		row := append(cells(pod, h.Network, h.IfName, addresses(h.Addresses)), state(h))
		rows = append(rows, append(row, cells(string(h.ENI), short(h.ContainerID))...))
	}
	slices.SortStableFunc(rows, func(a, b []cell) int { return strings.Compare(a[0].text, b[0].text) })
	p.table([]string{"POD", "NETWORK", "INTERFACE", "ADDRESSES", "STATE", "ENI", "CONTAINER"}, rows)
}

func addresses(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ",")
}

// state is the attachment's, and whether only a DEL can end it.
func state(h agentapi.HoldStatus) cell {
	switch h.State {
	case ownership.Held.String():
		if !h.NetnsVisible {
			return cell{h.State + " (netns unseen)", warn}
		}
		return cell{h.State, good}
	case ownership.Guest.String():
		return cell{h.State, good}
	case ownership.Lost.String():
		return cell{h.State, bad}
	}
	return cell{h.State, plain}
}

// short is a container ID as crictl shows it.
func short(id string) string {
	const enough = 13
	if len(id) > enough {
		return id[:enough]
	}
	return id
}
