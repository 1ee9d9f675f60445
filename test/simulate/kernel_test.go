// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package simulate

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// kernel is a worker's host: its links, the network namespaces of its pods, its disk. Pods come and stay.
type kernel struct {
	links    []attachment.Link
	recorded func() // the ledger was written to

	mu     sync.Mutex
	cookie uint64
	netns  map[string]*namespace // by path
	ledger map[string]string
}

type namespace struct {
	attachment.Netns
	addrs []netip.Addr
}

func newKernel(links []attachment.Link, recorded func()) *kernel {
	return &kernel{links: links, recorded: recorded, netns: map[string]*namespace{}, ledger: map[string]string{}}
}

// sandbox makes a network namespace.
func (k *kernel) sandbox(name string) attachment.Netns {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cookie++
	ns := &namespace{Netns: attachment.Netns{Path: "/run/netns/" + name, Cookie: k.cookie}}
	k.netns[ns.Path] = ns
	return ns.Netns
}

// carry puts an address on the pod's interface. The kernel would refuse one that another child of the ENI carries.
func (k *kernel) carry(path string, addr netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for p, ns := range k.netns {
		for _, a := range ns.addrs {
			if a == addr {
				return fmt.Errorf("%s is on an interface in %s already", addr, p)
			}
		}
	}
	k.netns[path].addrs = append(k.netns[path].addrs, addr)
	return nil
}

// Look implements [pool.Namespaces].
func (k *kernel) Look(a attachment.Netns) pool.Sight {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ns := k.netns[a.Path]; ns != nil && ns.Same(a) {
		return pool.Alive
	}
	return pool.Gone
}

// Elsewhere implements [pool.Namespaces]: a namespace has one path here.
func (k *kernel) Elsewhere([]attachment.Netns) ([]attachment.Netns, error) { return nil, nil }

// Forget implements [pool.Namespaces]: there are no neighbours here.
func (k *kernel) Forget(string, []netip.Addr) error { return nil }

// Scan implements [pool.Namespaces].
func (k *kernel) Scan() ([]pool.Found, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var found []pool.Found
	for _, ns := range k.netns {
		found = append(found, pool.Found{Netns: ns.Netns, Addrs: ns.addrs})
	}
	return found, nil
}

// namespaces is the kernel as the pool asks about pods: the host has a method Addresses too.
type namespaces struct{ *kernel }

// Addresses implements [pool.Namespaces].
func (k namespaces) Addresses(path string) ([]netip.Addr, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ns := k.netns[path]
	if ns == nil {
		return nil, fmt.Errorf("no namespace at %s", path)
	}
	return ns.addrs, nil
}

// Links implements [pool.Host].
func (k *kernel) Links() ([]attachment.Link, error) { return k.links, nil }

// Up implements [pool.Host]. All links are up.
func (k *kernel) Up(index, _ int) error { return fmt.Errorf("link %d is up", index) }

// Addresses implements [pool.Host]: the host itself has none of the pool's.
func (k *kernel) Addresses() (map[netip.Addr]string, error) { return nil, nil }

// Put implements [pool.Ledger].
func (k *kernel) Put(records ...pool.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range records {
		if r.Value == nil {
			delete(k.ledger, r.Key)
		} else {
			k.ledger[r.Key] = string(r.Value)
		}
	}
	k.recorded() // whatever becomes stock is recorded
	return nil
}

// tombstones are none: no plugin misses its agent here.
type tombstones struct{}

// List implements [pool.Tombstones].
func (tombstones) List() ([]pool.Tombstone, error) { return nil, nil }

// Find implements [pool.Tombstones].
func (tombstones) Find(attachment.Key) (pool.Tombstone, bool, error) {
	return pool.Tombstone{}, false, nil
}

// Remove implements [pool.Tombstones].
func (tombstones) Remove(k attachment.Key) error { return fmt.Errorf("no tombstone of %s", k) }
