// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package stage

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// Routes is how the VPC's kernel forwards. It is safe for concurrent use.
type Routes struct {
	mu  sync.Mutex
	vpc netlinksafe.Handle
}

// OpenRoutes looks into the VPC's network namespace. The caller closes what it returns.
func OpenRoutes(vpcNetns string) (*Routes, error) {
	h, err := pod.Handle(vpcNetns)
	if err != nil {
		return nil, err
	}
	return &Routes{vpc: h}, nil
}

// Close ends the look.
func (r *Routes) Close() { r.vpc.Close() }

// LinkOf is the name of an ENI's link in the VPC's namespace. The fabric keeps the ID in the link's alias.
func (r *Routes) LinkOf(eniID string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	links, err := r.vpc.LinkList()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Alias, eniID+" ") {
			return l.Attrs().Name, nil
		}
	}
	return "", fmt.Errorf("the fabric has no link for %s", eniID)
}

// Of is the link to which the kernel of the VPC routes an address; empty when to none.
func (r *Routes) Of(addr netip.Addr) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	routes, err := r.vpc.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Dst: ipNet(netip.PrefixFrom(addr, addr.BitLen())), Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", fmt.Errorf("read the VPC's route to %s: %w", addr, err)
	}
	if len(routes) == 0 {
		return "", nil
	}
	link, err := r.vpc.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", err
	}
	return link.Attrs().Name, nil
}

// Await waits until the kernel of the VPC routes an address to a link.
func (r *Routes) Await(ctx context.Context, addr netip.Addr, dev string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		route, err := r.Of(addr)
		if err != nil || route == dev {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the fabric routes %s to %q, not to %s: %w", addr, route, dev, context.Cause(ctx))
		}
	}
}
