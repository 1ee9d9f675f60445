// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lab

import (
	"net/netip"
	"regexp"

	"github.com/multus-vpc/multus-vpc/internal/lab/fabric"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// efaOnly is the type of an ENI that has no IP and no network device.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa.html
const efaOnly = "efa-only"

// topology is what the data path looks like when the VPC looks like view. A terminated instance keeps its namespace,
// without ENIs, for as long as EC2 shows it.
func topology(view vpc.View, names *names, l *scenario.Lab) fabric.Topology {
	t := fabric.Topology{Routes: view.Routes(), RoutePrefixes: view.RoutePrefixes()}
	for _, v := range view.VPCs() {
		for _, p := range []netip.Prefix{v.IPv4, v.IPv6} {
			if p.IsValid() {
				t.VPCCIDRs = append(t.VPCCIDRs, p)
			}
		}
	}
	for _, s := range view.Subnets() {
		t.Subnets = append(t.Subnets, fabric.Subnet{Name: s.ID, IPv4: s.IPv4, IPv6: s.IPv6})
	}
	for _, i := range view.Instances() {
		name := names.add(i)
		t.Workers = append(t.Workers, fabric.Worker{Name: name, Local: []netip.Addr{IMDSInWorker.Addr(), EC2InWorker.Addr()}})
		for _, e := range view.ENIs(i.ID) {
			if e.InterfaceType == efaOnly {
				continue
			}
			t.ENIs = append(t.ENIs, fabric.ENI{
				ID: e.ID, Worker: name, Subnet: e.SubnetID, MAC: e.MAC,
				NetworkCard: e.Attachment.NetworkCard, DeviceIndex: e.Attachment.DeviceIndex,
				Primary: e.Primary, IPv6: e.IPv6, Early: early(e, i, l),
			})
		}
	}
	return t
}

// early reports whether the ENI was there when its instance booted. A scenario says so of its own ENIs.
func early(e vpc.ENI, i vpc.Instance, l *scenario.Lab) bool {
	for _, ids := range l.ENIs {
		for _, id := range ids {
			if id == e.ID {
				return l.Early(id)
			}
		}
	}
	return !e.Attachment.AttachTime.After(i.LaunchTime)
}

// names gives every instance the name of its namespace: its own in the scenario; for one that was launched later its
// Name tag when that is free and usable, and otherwise its ID.
type names struct {
	byID  map[string]string
	taken map[string]bool
}

func newNames(l *scenario.Lab) *names {
	n := &names{byID: map[string]string{}, taken: map[string]bool{"vpc": true}}
	for name, id := range l.Instances {
		n.byID[id], n.taken[name] = name, true
	}
	return n
}

// usable names are those that a scenario may give an instance.
var usable = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

func (n *names) add(i vpc.Instance) string {
	if name, ok := n.byID[i.ID]; ok {
		return name
	}
	name := i.Name()
	if n.taken[name] || !usable.MatchString(name) {
		name = i.ID
	}
	n.byID[i.ID], n.taken[name] = name, true
	return name
}

func (n *names) of(id string) string { return n.byID[id] }
