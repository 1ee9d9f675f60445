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

// desired lists the addresses that EC2 should know, in the interfaces' order.
func desired(interfaces []attachment.Interface) (wanted []carried) {
	for _, i := range interfaces {
		for _, p := range i.Addresses {
			if ignored, _ := unroutable(i); ignored == "" && routable(p.Addr()) {
				wanted = append(wanted, carried{p.Addr(), i})
			}
		}
	}
	return wanted
}

// describe says of each interface whether the VPC can route to it.
func describe(interfaces []attachment.Interface) (all []InterfaceReport) {
	for _, i := range interfaces {
		ignored, useless := unroutable(i)
		all = append(all, InterfaceReport{i.Name, ignored, useless})
	}
	return all
}

// routable leaves out what has no meaning beyond a link.
func routable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsLinkLocalUnicast()
}

// unroutable says why a VPC cannot route to the interface, "" when it can, and whether it was meant to.
func unroutable(i attachment.Interface) (why string, useless bool) {
	switch i.Kind {
	case attachment.KindIPVlan:
		return "", false
	case "macvlan", "macvtap":
		return "a " + i.Kind + " interface has a MAC of its own, and a VPC drops frames whose MAC is not the ENI's: use ipvlan in mode l2", true
	case "":
		return "not an ipvlan child of an ENI", false
	}
	return fmt.Sprintf("a %s interface is no ipvlan child of an ENI", i.Kind), false
}
