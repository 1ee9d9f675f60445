// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync

import (
	"fmt"
	"net/netip"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// carried is one address and the interface that carries it.
type carried struct {
	addr netip.Addr
	by   attachment.Interface
}

// desired lists the addresses that EC2 should know, in the interfaces' order, and why others with addresses cannot be known.
// The cluster's own interface is neither: it is a veth in most clusters, and its CNI plugin sees to its address.
func desired(interfaces []attachment.Interface) (wanted []carried, ignored map[string]string) {
	ignored = map[string]string{}
	for _, i := range interfaces {
		why := unroutable(i)
		for _, p := range i.Addresses {
			switch {
			case !routable(p.Addr()):
			case why == "":
				wanted = append(wanted, carried{p.Addr(), i})
			case i.Kind != "veth":
				ignored[i.Name] = why
			}
		}
	}
	return wanted, ignored
}

// routableNames are the names of the interfaces that a VPC can route to, with or without addresses yet.
func routableNames(interfaces []attachment.Interface) (names []string) {
	for _, i := range interfaces {
		if unroutable(i) == "" {
			names = append(names, i.Name)
		}
	}
	return names
}

// routable leaves out what has no meaning beyond a link.
func routable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsLinkLocalUnicast()
}

// unroutable says why a VPC cannot route to the interface, "" when it can.
func unroutable(i attachment.Interface) string {
	switch i.Kind {
	case attachment.KindIPVlan:
		return ""
	case "macvlan", "macvtap":
		return "a " + i.Kind + " interface has a MAC of its own, and a VPC drops frames whose MAC is not the ENI's: use ipvlan in mode l2"
	case "veth", "bridge":
		return "a " + i.Kind + " interface is on no ENI: use ipvlan in mode l2"
	case "":
		return "not an ipvlan child of an ENI"
	}
	return fmt.Sprintf("a %s interface is no ipvlan child of an ENI", i.Kind)
}
