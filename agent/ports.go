// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/kube"
	"github.com/multus-vpc/multus-vpc/internal/ledger"
	"github.com/multus-vpc/multus-vpc/internal/link"
	"github.com/multus-vpc/multus-vpc/internal/netns"
	"github.com/multus-vpc/multus-vpc/internal/pool"
	"github.com/multus-vpc/multus-vpc/internal/tombstone"
)

// The types of this file give the hands the shapes that the pool's ports have. They decide nothing.

type host struct{ log *slog.Logger }

func (host) Links() ([]attachment.Link, error)         { return link.Hosts() }
func (host) Addresses() (map[netip.Addr]string, error) { return link.HostAddresses() }

// Up is content with a link that is up for pods, and warns of what else that does to the host.
func (h host) Up(index, mtu int) error {
	err := link.Up(index, mtu)
	if errors.Is(err, link.ErrAdvertisements) {
		h.log.Warn("the host may take addresses and a default route from the link; mount the host's /proc/sys/net at /host/proc/sys/net, or set net.ipv6.conf.default.accept_ra=0",
			"error", err)
		return nil
	}
	return err
}

type namespaces struct{}

func (namespaces) Look(n attachment.Netns) pool.Sight {
	switch netns.Look(n) {
	case netns.Alive:
		return pool.Alive
	case netns.Gone:
		return pool.Gone
	default:
		return pool.Hidden
	}
}

func (namespaces) Elsewhere(ns []attachment.Netns) ([]attachment.Netns, error) {
	found, err := netns.Elsewhere(ns, netns.Dirs())
	if err != nil {
		return nil, err
	}
	var reachable []attachment.Netns
	for n := range found {
		reachable = append(reachable, n)
	}
	return reachable, nil
}

func (namespaces) Addresses(path string) ([]netip.Addr, error) { return netns.Addresses(path) }

func (namespaces) Forget(path string, addrs []netip.Addr) error { return netns.Forget(path, addrs) }

func (namespaces) Scan() ([]pool.Found, error) {
	all, err := netns.Scan(netns.Dirs())
	if err != nil {
		return nil, err
	}
	found := make([]pool.Found, len(all))
	for i, f := range all {
		found[i] = pool.Found{Netns: f.Netns, Addrs: f.Addrs, Modes: map[int]string{}}
		for _, c := range f.Children {
			if found[i].Modes[c.ParentIndex] == "" || c.Mode != "l2" {
				found[i].Modes[c.ParentIndex] = c.Mode
			}
		}
	}
	return found, nil
}

type records struct{ book *ledger.Ledger }

func (r records) Put(recs ...pool.Record) error {
	es := make([]ledger.Entry, len(recs))
	for i, rec := range recs {
		es[i] = ledger.Entry{Key: rec.Key, Value: rec.Value}
	}
	return r.book.Put(es...)
}

func entries(found map[string]json.RawMessage) []pool.Record {
	recs := make([]pool.Record, 0, len(found))
	for k, v := range found {
		recs = append(recs, pool.Record{Key: k, Value: v})
	}
	return recs
}

type tombstones struct{ tombstone.Dir }

func (t tombstones) List() ([]pool.Tombstone, error) {
	stones, damaged, err := t.Dir.List()
	if err == nil && damaged > 0 {
		err = fmt.Errorf("%d notes in %s cannot be read", damaged, t.Dir)
	}
	out := make([]pool.Tombstone, len(stones))
	for i, s := range stones {
		out[i] = word(s)
	}
	return out, err
}

func (t tombstones) Find(key attachment.Key) (pool.Tombstone, bool, error) {
	s, ok, err := t.Dir.Find(key)
	return word(s), ok, err
}

func word(s tombstone.Note) pool.Tombstone {
	return pool.Tombstone{Key: s.Key, BootID: s.BootID, Uptime: time.Duration(s.BootTime)}
}

// api is the Kubernetes API, or nil where there is none: then sticky addresses are refused, pods' claims take nothing from other
// ENIs but floating addresses, and all else works.
func api(cfg kube.Config, log *slog.Logger) (*kube.Client, error) {
	cfg.UserAgent = "multus-vpc-agent/" + version()
	client, err := kube.New(cfg)
	if errors.Is(err, kube.ErrNoAPI) {
		log.Info("works without the Kubernetes API; sticky addresses are refused", "reason", err)
		return nil, nil
	}
	return client, err
}
