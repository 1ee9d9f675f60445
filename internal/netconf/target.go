// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"maps"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

func (r *reader) target(top object) Target {
	var t Target
	t.Master = top.text("master")
	if top.has("master") && t.Master == "" {
		r.invalid("master", "%s names no link; write the name of the ENI's link, or remove the key", show(top.raw("master")))
	}
	if o, found := top.object("eni"); found {
		t.Selector = r.selector(o)
		if top.has("master") {
			r.invalid("eni", "given together with master (%q); keep one of them", t.Master)
		}
	}
	return t
}

func (r *reader) selector(o object) eni.Selector {
	o.only(eniKeys, nil)
	if len(o.fields) == 0 {
		r.invalid(o.path, "selects by nothing; name at least one of %s, or remove the key", strings.Join(eniKeys, ", "))
	}
	// The bounds only catch slips: no instance type has as many cards or slots.
	s := eni.Selector{DeviceIndex: o.count("deviceIndex", 0, 255), NetworkCard: o.count("networkCard", 0, 255)}
	s.SubnetID = eni.SubnetID(o.text("subnetID"))
	if o.has("subnetID") && !strings.HasPrefix(string(s.SubnetID), "subnet-") {
		r.invalid(o.at("subnetID"), "%s is not a subnet ID (subnet-…)", show(o.raw("subnetID")))
	}
	s.SubnetTags = r.tags(o, "subnetTags")
	return s
}

func (r *reader) tags(o object, key string) map[string]string {
	inner, found := o.object(key)
	if !found {
		return nil
	}
	if len(inner.fields) == 0 {
		r.invalid(o.at(key), "is empty; name a tag, or remove the key")
	}
	tags := make(map[string]string, len(inner.fields))
	for _, k := range slices.Sorted(maps.Keys(inner.fields)) {
		tags[k] = inner.text(k)
	}
	return tags
}

// underIpvlan checks the settings of upstream's ipvlan that decide whether a pod is reachable in a VPC.
func (r *reader) underIpvlan(top object, t Target) {
	if t.Master == "" {
		r.invalid("master", "missing; without it ipvlan takes the link of the default route, and the VPC would not route the pod's "+
			`address; name the ENI's link, or use type "vpcipvlan" with "eni"`)
	}
	r.ipvlanMode(top)
	if top.flag("linkInContainer", false) {
		r.invalid("linkInContainer", "true is not possible: the master must be an ENI's link in the host's network namespace")
	}
}

// ipvlanMode accepts l2 alone. In l3 and l3s the routing table of the host routes what the pod sends.
// https://docs.kernel.org/networking/ipvlan.html#operating-modes
func (r *reader) ipvlanMode(top object) {
	switch mode := top.text("mode"); mode {
	case "", "l2":
	case "l3", "l3s":
		r.invalid("mode", "%q routes the pod's packets by the host's table, which has no way off the ENI's subnet; use \"l2\"", mode)
	default:
		r.invalid("mode", "%q is not an ipvlan mode; use \"l2\"", mode)
	}
}

func (r *reader) mtu(top object) int {
	v := top.count("mtu", 0, maxMTU)
	if v == nil {
		return 0
	}
	if *v != 0 && *v < minMTU {
		r.invalid("mtu", "%d is not 0 (the ENI's) or between %d and %d", *v, minMTU, maxMTU)
	}
	return *v
}
