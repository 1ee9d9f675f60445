// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// TestTheSamplesExample is what the AWS samples describe: three pods on two workers have 10.10.1.80 to 82 from whereabouts, by
// Multus. EC2 knows none of these addresses, until one of our programs tells it.
func TestTheSamplesExample(t *testing.T) {
	c := up(t).install(t)
	for _, n := range c.nodes {
		c.thin(t, n)
		c.thick(t, n)
	}
	for _, kind := range []string{"thin", "thick"} {
		t.Run("init container with "+kind+" Multus", func(t *testing.T) { c.registeredOnce(t, kind) })
		t.Run("sidecar with "+kind+" Multus", func(t *testing.T) { c.keptRegistered(t, kind) })
		t.Run("vpcipvlan alone with "+kind+" Multus", func(t *testing.T) { c.registeredByThePlugin(t, kind) })
	}
}

// pair are pods that want to talk: two on worker-1, one on worker-2.
type pair struct {
	pods  []*aPod
	addrs []netip.Addr
}

// attach makes pods on the workers and attaches them.
func (c *cluster) attach(t *testing.T, kind, network string, workers ...string) pair {
	t.Helper()
	var p pair
	for i, w := range workers {
		made := c.create(t, c.nodes[w], string(rune('a'+i)), network)
		p.pods = append(p.pods, made)
		p.addrs = append(p.addrs, c.add(t, kind, made, network))
	}
	return p
}

// detach deletes the pods, and demands that nothing of them is left.
func (c *cluster) detach(t *testing.T, kind string, p pair) {
	t.Helper()
	for _, one := range p.pods {
		c.del(t, kind, one)
	}
}

func (p pair) talk(t *testing.T) {
	t.Helper()
	for i, from := range p.pods {
		for j, to := range p.addrs {
			if i != j {
				from.reaches(t, to)
			}
		}
	}
}

// unknown demands that EC2 knows none of the addresses, and that the VPC carries nothing for them.
func (c *cluster) unknown(t *testing.T, p pair) {
	t.Helper()
	last := len(p.pods) - 1
	for _, a := range p.addrs {
		if owners := c.owners(a); len(owners) > 0 {
			t.Errorf("%s is on %v before anybody registered it", a, owners)
		}
	}
	var both sync.WaitGroup
	both.Go(func() { p.pods[0].misses(t, p.addrs[last]) })
	both.Go(func() { p.pods[last].misses(t, p.addrs[0]) })
	both.Wait()
}

// known demands that each address is on the ENI of its pod's worker and nowhere else.
func (c *cluster) known(t *testing.T, p pair) {
	t.Helper()
	for i, a := range p.addrs {
		if owners := c.owners(a); !slices.Equal(owners, []string{p.pods[i].node.name}) {
			t.Errorf("%s of %s is on %v, want on %s alone", a, p.pods[i].Name, owners, p.pods[i].node.name)
		}
	}
}

// registeredOnce is upstream ipvlan with our init container.
func (c *cluster) registeredOnce(t *testing.T, kind string) {
	const network = "ipvlan-multus"
	p := c.attach(t, kind, network, "worker-1", "worker-1", "worker-2")
	p.pods[0].reaches(t, p.addrs[1]) // on one worker it works, which makes it worse to debug
	c.unknown(t, p)
	var inits []*program
	for i, one := range p.pods {
		var env []string
		if i == 1 { // a pod that does not reach the instance metadata, as with a hop limit of 1
			env = []string{"AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret"}
		}
		inits = append(inits, one.start(t, "initcontainer", network, env...))
	}
	for _, i := range inits {
		i.end(t)
	}
	c.known(t, p)
	p.talk(t)
	c.sweep(t)
	c.known(t, p)
	c.detach(t, kind, p)
	c.sweep(t)
	for _, a := range p.addrs {
		if owners := c.owners(a); len(owners) > 0 {
			t.Errorf("%s is still on %v after a sweep", a, owners)
		}
	}
}

// keptRegistered is upstream ipvlan with our sidecar.
func (c *cluster) keptRegistered(t *testing.T, kind string) {
	const network = "ipvlan-multus"
	p := c.attach(t, kind, network, "worker-1", "worker-2")
	c.unknown(t, p)
	var sidecars []*program
	for _, one := range p.pods {
		sidecars = append(sidecars, one.start(t, "sidecar", network))
	}
	for _, s := range sidecars {
		s.ready(t)
	}
	c.known(t, p)
	p.talk(t)
	for _, s := range sidecars {
		s.stop(t)
	}
	for _, a := range p.addrs {
		if owners := c.owners(a); len(owners) > 0 {
			t.Errorf("%s is still on %v after its pod's sidecar ended", a, owners)
		}
	}
	c.detach(t, kind, p)
}

// registeredByThePlugin needs no container: the pods answer when ADD returns.
func (c *cluster) registeredByThePlugin(t *testing.T, kind string) {
	for _, n := range c.nodes {
		n.startAgent(t, "ipCooldownPeriod: 1\n")
	}
	p := c.attach(t, kind, "vpcipvlan-multus", "worker-1", "worker-2")
	c.known(t, p)
	p.talk(t)
	c.detach(t, kind, p)
	await(t, "the agents give the addresses back", func() error {
		for _, a := range p.addrs {
			if owners := c.owners(a); len(owners) > 0 {
				return fmt.Errorf("%s is still on %v", a, owners)
			}
		}
		return nil
	})
}

// sweep has vpcctl free what init containers have registered for pods that are gone: nobody else does. What pods have by their
// network-status, which Multus wrote, it leaves alone.
func (c *cluster) sweep(t *testing.T) {
	t.Helper()
	n := c.nodes["worker-1"]
	out, err := n.run(t.Context(), filepath.Join(n.bin, "vpcctl"), append(n.aws(), "KUBECONFIG="+c.api.Kubeconfig), "sweep", "--yes", "--wait", "1s")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", out)
}
