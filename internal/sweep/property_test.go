// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sweep_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/sweep"
)

// chance is a cluster as it comes: what its networks use, and at each look its pods.
type chance struct {
	networks []cluster.Network
	pods     [2][]cluster.Pod
	fault    string
}

// draw makes a chance, in which pods have any of the world's addresses, float them, are being set up, end and go.
func draw(t *rapid.T) (c chance) {
	for _, config := range []string{usesPool, `{"ipam": {"type": "vpcipam", "source": "subnet"}}`, `{"floating": ["10.10.1.81"], "ipam": {"type": "static"}}`} {
		if rapid.IntRange(0, 3).Draw(t, "network") == 0 {
			c.networks = append(c.networks, network(config))
		}
	}
	for look := range c.pods {
		for i := range rapid.IntRange(0, 4).Draw(t, "pods") {
			p := pod(fmt.Sprint("p", i), rapid.SampledFrom([]string{"node-1", "node-2", "node-9", ""}).Draw(t, "node"), rapid.SampledFrom(all()).Draw(t, "has"))
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0:
				p.Ended = true
			case 1:
				delete(p.Annotations, cluster.AnnotationNetworkStatus)
			case 2:
				p.Annotations[cluster.AnnotationFloating] = rapid.SampledFrom(all()).Draw(t, "floats")
			case 3:
				p.Containers = []cluster.Container{{Command: []string{"/sidecar"}}}
			case 4:
				p.Annotations[cluster.AnnotationNetworkStatus] = "{"
			}
			c.pods[look] = append(c.pods[look], p)
		}
	}
	c.fault = rapid.SampledFrom([]string{
		"", "{action: UnassignPrivateIpAddresses, nth: 1, count: 1, kind: lost-reply}", "{action: DescribeNetworkInterfaces, nth: 2, count: 1, kind: 5xx}",
		"{action: UnassignPrivateIpAddresses, nth: 2, count: 1, kind: error-before, code: UnauthorizedOperation}",
		"{action: UnassignIpv6Addresses, nth: 1, count: 1, kind: error-after, code: InternalError}",
	}).Draw(t, "fault")
	return c
}

// forbidden says why the address must not be freed; by other words than the judge's.
func (c chance) forbidden(a netip.Addr) string {
	onNode := map[string]string{}
	for _, s := range []string{"10.10.1.80", "10.10.1.81", "10.10.1.112", "10.10.1.128", "10.10.1.144", "2001:db8:10:1::80", "2001:db8:10:1:5::80"} {
		onNode[s] = "node-1"
	}
	onNode["10.10.1.82"], onNode["10.10.2.80"] = "node-2", "node-2"
	node, ours := onNode[a.String()]
	if !ours || a.String() == "10.10.1.112" || a.String() == "2001:db8:10:1::80" {
		return "it is not a pod's of this cluster"
	}
	for _, pods := range c.pods {
		for _, p := range pods {
			addrs, written, err := p.Attached()
			switch {
			case p.Ended:
			case slices.Contains(addrs, a):
				return p.Name + " has it"
			case p.Annotations[cluster.AnnotationFloating] == a.String():
				return p.Name + " lets it float"
			case p.Node != "" && (p.Node == node || p.Node == "node-9") && (err != nil || !written || len(p.Containers) > 0):
				return p.Name + " may have it"
			}
		}
	}
	for _, n := range c.networks {
		use, err := n.Use()
		switch reserved := a.String() == "10.10.1.128"; {
		case err != nil || slices.ContainsFunc(use.Floating, func(r attachment.Range) bool { return r.Contains(a) }):
			return "a network lets it float"
		case use.Reserved && reserved, use.Chosen && !reserved && a.String() != "10.10.1.144" && a.Is4():
			return "it may be stock"
		}
	}
	return ""
}

// TestNothingThatSpeaksForAnAddressIsOverlooked: of random clusters, what could be somebody's stays, and what could not is freed or
// said to have failed.
func TestNothingThatSpeaksForAnAddressIsOverlooked(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		c := draw(rt)
		var wrong []string
		inWorld(t, "ec2: {propagation: {describe: 1s}, faults: ["+c.fault+"]}", func(_ *testing.T, w *world) {
			w.api.networks = c.networks
			w.api.before = func(n int) error { w.api.pods = c.pods[min(n, 2)-1]; return nil }
			r, err := w.run(sweep.Options{Free: true})
			if err != nil {
				wrong = append(wrong, err.Error())
				return
			}
			synctest.Wait()
			time.Sleep(5 * time.Second) // of the bubble: what EC2 shows has settled
			held := map[netip.Addr]bool{}
			for _, e := range w.lab.Cloud.View(time.Now()).AllENIs() {
				for _, a := range slices.Concat(e.Secondary, e.IPv6) {
					held[a] = true
				}
			}
			for _, text := range all() {
				a := netip.MustParseAddr(text)
				why := c.forbidden(a)
				if why != "" && !held[a] {
					wrong = append(wrong, text+" was freed, though "+why)
				}
				failed := slices.ContainsFunc(r.Findings, func(f sweep.Finding) bool { return f.Address == a && f.Verdict == sweep.Failed })
				if why == "" && held[a] && !failed {
					wrong = append(wrong, text+" is an orphan, and stays")
				}
			}
		})
		if len(wrong) > 0 {
			rt.Fatalf("%v", wrong)
		}
	})
}
