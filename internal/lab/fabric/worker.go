// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// workerSysctls are a Kubernetes node's: it forwards, and systemd's default reverse path filter is loose.
// https://github.com/systemd/systemd/blob/main/sysctl.d/50-default.conf
func workerSysctls() map[string]string {
	return map[string]string{
		"ipv4/ip_forward":              "1",
		"ipv4/conf/all/rp_filter":      "2",
		"ipv4/conf/default/rp_filter":  "2",
		"ipv4/conf/all/send_redirects": "0",
		"ipv6/conf/default/accept_dad": "0",
	}
}

// networkdSysctls are what systemd-networkd sets on a link that it manages, as it listens to router advertisements by
// itself. A late link is not managed and has the kernel's default, which is to believe them.
// https://www.freedesktop.org/software/systemd/man/latest/systemd.network.html#IPv6AcceptRA=
func networkdSysctls(link string) map[string]string {
	return map[string]string{"ipv6/conf/" + link + "/accept_ra": "0"}
}

// addWorkers makes the namespaces of workers that have none.
func (f *Fabric) addWorkers(ctx context.Context, workers []Worker) error {
	return each(ctx, workers, func(w Worker) error {
		if f.workers[w.Name] {
			return nil
		}
		path, err := netns.Create(f.name(w.Name))
		if err != nil {
			return err
		}
		if err := prepareWorker(path, w.Local); err != nil {
			return errors.Join(fmt.Errorf("prepare worker %s: %w", w.Name, err), netns.Delete(f.name(w.Name)))
		}
		f.workers[w.Name] = true
		return nil
	})
}

func prepareWorker(path string, local []netip.Addr) error {
	if err := netns.Do(path, func() error { return writeSysctls(workerSysctls()) }); err != nil {
		return err
	}
	h, err := handleAt(path)
	if err != nil {
		return err
	}
	defer h.Close()
	loopback := &netlink.Dummy{LinkAttrs: lo()}
	for _, a := range local {
		if err := h.AddrAdd(loopback, &netlink.Addr{IPNet: ipNet(single(a))}); err != nil {
			return fmt.Errorf("add %s to lo: %w", a, err)
		}
	}
	return h.LinkSetUp(loopback)
}

// removeWorkers removes the namespaces of workers that are not listed.
func (f *Fabric) removeWorkers(workers []Worker) error {
	listed := map[string]bool{}
	for _, w := range workers {
		listed[w.Name] = true
	}
	for name := range f.workers {
		if listed[name] {
			continue
		}
		if err := netns.Delete(f.name(name)); err != nil {
			return err
		}
		delete(f.workers, name)
	}
	return nil
}

// Where the operating system of an EKS worker puts the routes of an ENI that was there at boot: metric and table numbers
// of nodeadm's systemd-networkd files, its rule priority.
// https://github.com/awslabs/amazon-eks-ami (nodeadm/internal/network)
const (
	hostMetric       = 512
	hostTable        = 10000
	hostRulePriority = 32765
)

// configureHost does what the worker's operating system does with a new ENI: nothing with a late one.
func (f *Fabric) configureHost(e ENI, s Subnet) error {
	if !e.Early && !e.isPrimary() {
		return nil
	}
	h, err := handleAt(f.Netns(e.Worker))
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(e.linkName())
	if err != nil {
		return fmt.Errorf("find %s on %s: %w", e.linkName(), e.Worker, err)
	}
	if err := netns.Do(f.Netns(e.Worker), func() error { return writeSysctls(networkdSysctls(e.linkName())) }); err != nil {
		return fmt.Errorf("configure %s on %s: %w", e.linkName(), e.Worker, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s on %s up: %w", e.linkName(), e.Worker, err)
	}
	if err := hostAddresses(h, link, e, s); err != nil {
		return fmt.Errorf("configure %s on %s: %w", e.linkName(), e.Worker, err)
	}
	return nil
}

// hostAddresses adds the ENI's addresses and the routes that lead through it.
func hostAddresses(h netlinksafe.Handle, link netlink.Link, e ENI, s Subnet) error {
	offset := 100*e.NetworkCard + e.DeviceIndex
	if e.Primary.IsValid() && s.IPv4.IsValid() {
		on := netip.PrefixFrom(e.Primary, s.IPv4.Bits())
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(on), Flags: unix.IFA_F_NOPREFIXROUTE}); err != nil {
			return fmt.Errorf("add %s: %w", on, err)
		}
		if err := hostRoutes(h, link, e, s.IPv4, offset); err != nil {
			return err
		}
	}
	for _, a := range e.IPv6 {
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(single(a)), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	if len(e.IPv6) == 0 || !e.isPrimary() {
		return nil
	}
	return addRoute(h, link, netip.MustParsePrefix("::/0"), routerIPv6, hostMetric, unix.RT_TABLE_MAIN)
}

// hostRoutes gives the primary ENI the worker's default route and every other one a table of its own.
func hostRoutes(h netlinksafe.Handle, link netlink.Link, e ENI, subnet netip.Prefix, offset int) error {
	anywhere, onLink := netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}
	if err := addRoute(h, link, subnet.Masked(), onLink, hostMetric+offset, unix.RT_TABLE_MAIN); err != nil {
		return err
	}
	if e.isPrimary() {
		return addRoute(h, link, anywhere, eni.Gateway(subnet), hostMetric+offset, unix.RT_TABLE_MAIN)
	}
	table := hostTable + offset
	if err := addRoute(h, link, subnet.Masked(), onLink, 0, table); err != nil {
		return err
	}
	if err := addRoute(h, link, anywhere, eni.Gateway(subnet), 0, table); err != nil {
		return err
	}
	rule := netlink.NewRule()
	rule.Src, rule.Table, rule.Priority, rule.Family = ipNet(single(e.Primary)), table, hostRulePriority, netlink.FAMILY_V4
	if err := h.RuleAdd(rule); err != nil {
		return fmt.Errorf("add rule from %s: %w", e.Primary, err)
	}
	return nil
}

// addRoute adds a route through link: to a gateway, or on the link itself when via is not valid.
func addRoute(h netlinksafe.Handle, link netlink.Link, dst netip.Prefix, via netip.Addr, metric, table int) error {
	r := &netlink.Route{Dst: ipNet(dst), LinkIndex: link.Attrs().Index, Priority: metric, Table: table}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else if dst.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := h.RouteAdd(r); err != nil {
		return fmt.Errorf("add route to %s: %w", dst, err)
	}
	return nil
}

// handleAt is an rtnetlink handle in the namespace at path, without keeping the file open.
func handleAt(path string) (netlinksafe.Handle, error) {
	fd, err := vnetns.GetFromPath(path)
	if err != nil {
		return netlinksafe.Handle{}, fmt.Errorf("open netns %s: %w", path, err)
	}
	h, err := netlinksafe.NewHandleAt(fd, netlinkRoute)
	if err = errors.Join(err, fd.Close()); err != nil {
		return netlinksafe.Handle{}, fmt.Errorf("open rtnetlink in %s: %w", path, err)
	}
	return h, nil
}
