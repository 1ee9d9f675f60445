// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workers

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// The tags by which an ENI is known to be ours, and whose it is.
const (
	tagOwner    = "multus-vpc.io/owner"
	tagInstance = "multus-vpc.io/instance"
	tagSlot     = "multus-vpc.io/slot"
	tagLaunched = "multus-vpc.io/launched"
	tagNoManage = "node.k8s.amazonaws.com/no_manage"
)

// asPlanned compares every worker's ENIs with what the template's parameters say of them.
func (s *story) asPlanned(all []autoscaling.Instance) error {
	view := s.lab.Cloud.View(time.Now())
	var errs []error
	for _, w := range all {
		enis := view.ENIs(w.ID)
		if len(enis) != 3 {
			errs = append(errs, fmt.Errorf("%s has %d ENIs, want 3", w.ID, len(enis)))
			continue
		}
		for index, e := range enis[1:] {
			for _, problem := range s.problems(view, w, index+1, e, enis[0].Attachment.AttachTime) {
				errs = append(errs, fmt.Errorf("%s at index %d of %s: %s", e.ID, index+1, w.ID, problem))
			}
		}
	}
	for _, e := range ours(view, tagOwner, groupName) {
		if e.Attachment == nil {
			errs = append(errs, fmt.Errorf("%s is attached to nothing", e.ID))
		}
	}
	errs = append(errs, s.fromTheStart(view)...)
	if n := len(errs); n > shownProblems {
		errs = append(errs[:shownProblems:shownProblems], fmt.Errorf("and %d more", n-shownProblems))
	}
	return errors.Join(errs...)
}

// shownProblems keep a line of the story readable: what is wrong with one ENI is wrong with all.
const shownProblems = 2

// problems are the differences of an ENI from what is planned for a worker at a device index of its only card.
func (s *story) problems(view vpc.View, w autoscaling.Instance, index int, e vpc.ENI, launched time.Time) (out []string) {
	differs := func(what string, got, want any) {
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
			out = append(out, fmt.Sprintf("%s: %s, want %s", what, g, w))
		}
	}
	subnet, _ := view.Subnet(e.SubnetID)
	differs("network card and index", fmt.Sprintf("%d:%d", e.Attachment.NetworkCard, e.Attachment.DeviceIndex), fmt.Sprintf("0:%d", index))
	differs("network", subnet.Tags["multus"], index)
	differs("zone", subnet.AZ, w.AZ)
	differs("security groups", e.Groups, []string{s.network.Outputs["MultusSecurityGroups"]})
	differs("deleted with its instance", e.Attachment.DeleteOnTermination, true)
	differs("source/destination check", e.SourceDestCheck, true)
	differs("tags", printed(e.Tags), printed(map[string]string{
		tagOwner: groupName, tagInstance: w.ID, tagSlot: fmt.Sprintf("0:%d", index), tagLaunched: launched.UTC().Format(time.RFC3339),
		tagNoManage: "true", "kubernetes.io/cluster/" + cluster: "owned", "team": "core",
	}))
	pool := reservation(view, e.SubnetID, "pool")
	inPool := slices.DeleteFunc(slices.Clone(e.Secondary), func(a netip.Addr) bool { return !pool.Contains(a) })
	differs("stock", fmt.Sprintf("%d, %d in %v", len(e.Secondary), len(inPool), pool), fmt.Sprintf("%d, %d in %v", stock, stock, pool))
	return out
}

func printed(tags map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, k+"="+tags[k])
	}
	return strings.Join(out, " ")
}

// reservation is the range with that role in a subnet.
func reservation(view vpc.View, subnet, role string) netip.Prefix {
	for _, r := range view.Reservations() {
		if r.SubnetID == subnet && r.Tags["multus-vpc.io/role"] == role {
			return r.CIDR
		}
	}
	return netip.Prefix{}
}

// fromTheStart: in each Multus subnet the workers' own addresses are in the part before the first range for pods, as low as
// there was room, and no address is on two ENIs.
func (s *story) fromTheStart(view vpc.View) (errs []error) {
	given := map[netip.Addr]string{}
	primaries := map[string][]netip.Addr{} // by subnet
	for _, e := range view.AllENIs() {
		for _, a := range e.Addresses() {
			if other, twice := given[a]; twice {
				errs = append(errs, fmt.Errorf("%s is on %s and on %s", a, other, e.ID))
			}
			given[a] = e.ID
		}
		primaries[e.SubnetID] = append(primaries[e.SubnetID], e.Primary)
	}
	for _, n := range s.subnets(view) {
		if n.Tags["multus"] == "" {
			continue
		}
		// AWS keeps the first four addresses of each subnet; each worker took the lowest that was free when it came.
		for _, a := range primaries[n.ID] {
			if last := offset(n.IPv4, 3+workersAtOnce); a.Compare(offset(n.IPv4, 4)) < 0 || a.Compare(last) > 0 {
				errs = append(errs, fmt.Errorf("%s is not at the start of %s", a, n.IPv4))
			}
		}
	}
	return errs
}

// workersAtOnce is the most that the story ever has, so the most addresses from the start of a subnet.
const workersAtOnce = 4

func offset(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// table draws every worker's ENIs.
func (s *story) table(all []autoscaling.Instance) {
	view := s.lab.Cloud.View(time.Now())
	rows := [][]string{{"WORKER", "ZONE", "IN SERVICE", "CARD", "INDEX", "ENI", "SUBNET", "ADDRESS", "STOCK"}}
	for _, w := range all {
		start := []string{w.ID, w.AZ, "after " + s.inService(w.ID)}
		for _, e := range view.ENIs(w.ID) {
			subnet, _ := view.Subnet(e.SubnetID)
			kept := "–"
			if len(e.Secondary) > 0 {
				kept = fmt.Sprintf("%s–%d", e.Secondary[0], e.Secondary[len(e.Secondary)-1].As4()[3])
			}
			rows = append(rows, append(start, strconv.Itoa(e.Attachment.NetworkCard), strconv.Itoa(e.Attachment.DeviceIndex), e.ID,
				strings.TrimPrefix(subnet.Tags["Name"], "network-"), e.Primary.String(), kept))
			start = []string{"", "", ""}
		}
	}
	s.teller.Table(rows)
	for _, w := range all[:min(1, len(all))] {
		if enis := view.ENIs(w.ID); len(enis) > 1 {
			s.teller.Say("\n   Tags of " + enis[1].ID + ", and of the others alike:")
			for _, k := range slices.Sorted(maps.Keys(enis[1].Tags)) {
				s.teller.Say("     " + k + "=" + enis[1].Tags[k])
			}
		}
	}
}
