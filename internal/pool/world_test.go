// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/imds"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// world is a lab with one agent's pool per worker. All of it lives in a synctest bubble, on the lab's EC2 through the
// real SDK.
type world struct {
	t       *testing.T
	lab     *scenario.Lab
	workers map[string]*node
	log     *slog.Logger
	ec2     http.RoundTripper // the way to EC2
	api     *statefulSets
}

// node is one worker: the pool under test and what it stands on.
type node struct {
	*pool.Node
	name   string
	world  *world
	cfg    pool.Config
	book   *book
	netns  *namespaces
	host   *host
	stones tombstones
	stop   func()
}

func newWorld(t *testing.T, yaml string) *world {
	t.Helper()
	if *unverified != "" && !strings.Contains(yaml, "assignOwned") {
		yaml = strings.Replace(yaml, "ec2: {", "ec2: {"+*unverified+", ", 1)
	}
	s, err := scenario.Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, lab: lab, workers: map[string]*node{}, log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})), ec2: lab.EC2(), api: &statefulSets{}}
	return w
}

// worker makes and starts the pool of a worker. The cleanup of the bubble must stop it: defer n.stop().
func (w *world) worker(name string, change ...func(*pool.Config)) *node {
	n := &node{name: name, world: w, cfg: pool.DefaultConfig(), book: newBook(), netns: &namespaces{}, stones: tombstones{}}
	n.host = &host{}
	for _, e := range w.lab.Cloud.View(time.Now()).ENIs(w.lab.Instances[name]) {
		n.host.links = append(n.host.links, attachment.Link{Name: "eth" + fmt.Sprint(e.Attachment.DeviceIndex), Index: 2 + e.Attachment.DeviceIndex, MTU: 9001, MAC: eni.ParseMAC(e.MAC), Up: true})
	}
	n.cfg.Log = w.log.With("worker", name)
	n.cfg.BootID = "boot-1"
	began := time.Now()
	n.cfg.Uptime = func() time.Duration { return time.Since(began) + time.Hour }
	for _, c := range change {
		c(&n.cfg)
	}
	n.start(false)
	w.workers[name] = n
	return n
}

// client is the AWS configuration of somebody in the lab.
func (w *world) client(key string, transport http.RoundTripper) aws.Config {
	return aws.Config{
		Region:      w.lab.Cloud.Region(),
		Credentials: credentials.NewStaticCredentialsProvider(key, "secret", ""),
		HTTPClient:  &http.Client{Transport: transport},
	}
}

// start runs a pool on what the ledger has: the first start, or one after a crash.
func (n *node) start(rebooted bool) {
	w := n.world
	n.Node = pool.New(n.cfg, eni.Instance{ID: eni.InstanceID(w.lab.Instances[n.name]), Type: w.typeOf(n.name), AZ: "us-west-2a", Region: w.lab.Cloud.Region()}, pool.Ports{
		EC2:        newOneAtATime(w.t, ec2eni.New(ec2eni.Config{SDK: w.client("AK"+n.name, w.ec2), Log: slog.New(slog.DiscardHandler)})),
		Metadata:   imds.New(imds.Config{SDK: w.client("AK"+n.name, w.lab.IMDS(n.name))}),
		Host:       n.host,
		Namespaces: n.netns,
		Ledger:     n.book,
		Tombstones: n.stones,
		Pods:       w.api,
	}, n.book.records(), rebooted)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	n.stop = func() { cancel(); <-done }
}

func (w *world) typeOf(name string) string {
	i, ok := w.lab.Cloud.View(time.Now()).Instance(w.lab.Instances[name])
	if !ok {
		w.t.Fatalf("no instance %q", name)
	}
	return i.Type
}

// crash stops the pool where it stands and starts another on the ledger, as kill -9 and a restart do.
func (n *node) crash() {
	n.stop()
	n.start(false)
}

// pod makes an attachment with a namespace of its own.
func (n *node) pod(id string) attachment.Attachment {
	return attachment.Attachment{
		Key: attachment.Key{ContainerID: id, IfName: "net1"}, Network: "n6",
		Pod:   attachment.Pod{Namespace: "default", Name: id, UID: "uid-" + id},
		Netns: n.netns.add("/run/netns/" + id),
	}
}

// add is a runtime's ADD: when it succeeds, the pod's namespace carries the address.
func (n *node) add(a attachment.Attachment, q attachment.Query) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := n.Add(ctx, a, q)
	if err != nil {
		return netip.Addr{}, err
	}
	addr := got.Addresses[0].Addr()
	n.netns.carry(a.Netns.Path, addr)
	return addr, nil
}

func (n *node) mustAdd(a attachment.Attachment, q attachment.Query) netip.Addr {
	n.world.t.Helper()
	addr, err := n.add(a, q)
	if err != nil {
		n.world.t.Fatalf("ADD %s on %s: %v", a.Key, n.name, err)
	}
	return addr
}

// del is a runtime's DEL: the interface goes first, then the address is released.
func (n *node) del(a attachment.Attachment) {
	n.world.t.Helper()
	n.netns.drop(a.Netns.Path)
	if err := n.Del(a.Key); err != nil {
		n.world.t.Fatalf("DEL %s: %v", a.Key, err)
	}
}

// states maps the addresses of a worker's ENIs to their states.
func (n *node) states() map[netip.Addr]string {
	all := map[netip.Addr]string{}
	for _, e := range n.Status().ENIs {
		for _, a := range e.Addresses {
			all[a.Addr] = a.State.String()
		}
	}
	return all
}

// count is how many addresses of the worker are in a state.
func (n *node) count(state string) int {
	c := 0
	for _, s := range n.states() {
		if s == state {
			c++
		}
	}
	return c
}

// eventually waits, in the bubble's time, until ok holds.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(within); !ok(); {
		if !time.Now().Before(late) {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(100 * time.Millisecond)
	}
	synctest.Wait()
}

// calls counts the lab's EC2 calls by action; result "" counts all.
func (w *world) calls(action, result string) int {
	c := 0
	for _, call := range w.lab.Front.Calls() {
		if call.Action == action && (result == "" || call.Result == result) {
			c += call.Count
		}
	}
	return c
}

// writes counts the calls that change EC2.
func (w *world) writes() int {
	c := 0
	for _, call := range w.lab.Front.Calls() {
		if !strings.HasPrefix(call.Action, "Describe") && !strings.HasPrefix(call.Action, "Get") {
			c += call.Count
		}
	}
	return c
}

// owner is the ENI that has the address right now, "" for none.
func (w *world) owner(addr netip.Addr) string { return w.lab.Cloud.View(time.Now()).Routes()[addr] }

// book is a ledger in memory that survives a crash of the pool, and can be full.
type book struct {
	mu   sync.Mutex
	kept map[string]json.RawMessage
	full bool
}

func newBook() *book { return &book{kept: map[string]json.RawMessage{}} }

var errDiskFull = errors.New("no space left on device")

func (b *book) Put(recs ...pool.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		return errDiskFull
	}
	for _, r := range recs {
		if r.Value == nil {
			delete(b.kept, r.Key)
		} else {
			b.kept[r.Key] = r.Value
		}
	}
	return nil
}

// count counts the records whose key begins so.
func (b *book) count(prefix string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range b.kept {
		if strings.HasPrefix(key, prefix) {
			n++
		}
	}
	return n
}

func (b *book) setFull(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = full
}

func (b *book) value(key string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.kept[key])
}

func (b *book) records() []pool.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	var recs []pool.Record
	for k, v := range b.kept {
		recs = append(recs, pool.Record{Key: k, Value: v})
	}
	return recs
}

// namespaces are network namespaces by path.
type namespaces struct {
	mu     sync.Mutex
	hidden bool
	last   uint64
	scans  int
	at     map[string]*namespace
	// forgotten are the neighbours that were deleted, by path.
	forgotten map[string][]netip.Addr
}

type namespace struct {
	cookie uint64
	addrs  []netip.Addr
	modes  map[int]string
}

// add makes a new namespace at path, in place of any that is there.
func (n *namespaces) add(path string) attachment.Netns {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at = map[string]*namespace{}
	}
	n.last++
	n.at[path] = &namespace{cookie: n.last}
	return attachment.Netns{Path: path, Cookie: n.last}
}

func (n *namespaces) remove(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.at, path)
}

func (n *namespaces) hide(hidden bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hidden = hidden
}

// carry puts the address on an interface of the namespace; it is a test's mistake when another namespace of the worker
// carries it, as the kernel would refuse it on a second ipvlan child.
func (n *namespaces) carry(path string, addr netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p, ns := range n.at {
		if p != path && slices.Contains(ns.addrs, addr) {
			panic(fmt.Sprintf("%s is on %s already: EADDRINUSE", addr, p))
		}
	}
	if ns := n.at[path]; ns != nil && !slices.Contains(ns.addrs, addr) {
		ns.addrs = append(ns.addrs, addr)
	}
}

func (n *namespaces) drop(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ns := n.at[path]; ns != nil {
		ns.addrs = nil
	}
}

func (n *namespaces) Look(a attachment.Netns) pool.Sight {
	n.mu.Lock()
	defer n.mu.Unlock()
	ns := n.at[a.Path]
	switch {
	case n.hidden:
		return pool.Hidden
	case ns == nil || ns.cookie != a.Cookie:
		return pool.Gone
	}
	return pool.Alive
}

func (n *namespaces) Elsewhere(all []attachment.Netns) ([]attachment.Netns, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found []attachment.Netns
	for _, a := range all {
		for _, ns := range n.at {
			if ns.cookie == a.Cookie {
				found = append(found, a)
			}
		}
	}
	return found, nil
}

func (n *namespaces) Addresses(path string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ns := n.at[path]; ns != nil && !n.hidden {
		return slices.Clone(ns.addrs), nil
	}
	return nil, fmt.Errorf("no namespace at %s", path)
}

func (n *namespaces) Forget(path string, addrs []netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.forgotten == nil {
		n.forgotten = map[string][]netip.Addr{}
	}
	n.forgotten[path] = append(n.forgotten[path], addrs...)
	return nil
}

// forgot reports whether the pod's neighbour entry for the address was deleted since the last [namespaces.remember].
func (n *namespaces) forgot(a attachment.Attachment, addr netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.forgotten[a.Netns.Path], addr)
}

func (n *namespaces) remember() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgotten = nil
}

func (n *namespaces) Scan() ([]pool.Found, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.scans++
	var found []pool.Found
	for path, ns := range n.at {
		if !n.hidden {
			found = append(found, pool.Found{Netns: attachment.Netns{Path: path, Cookie: ns.cookie}, Addrs: slices.Clone(ns.addrs), Modes: maps.Clone(ns.modes)})
		}
	}
	return found, nil
}

func (n *namespaces) scanned() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.scans
}

// host is the host's links.
type host struct {
	mu    sync.Mutex
	links []attachment.Link
	addrs map[netip.Addr]string
	ups   int
}

func (h *host) Links() ([]attachment.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.links), nil
}

func (h *host) Up(index, mtu int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.links {
		if h.links[i].Index == index {
			h.links[i].Up, h.links[i].MTU = true, mtu
			h.ups++
			return nil
		}
	}
	return fmt.Errorf("no link with index %d", index)
}

func (h *host) Addresses() (map[netip.Addr]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.addrs), nil
}

// tombstones are a folder in memory.
type tombstones map[attachment.Key]pool.Tombstone

func (t tombstones) List() ([]pool.Tombstone, error) { return slices.Collect(maps.Values(t)), nil }

func (t tombstones) Find(k attachment.Key) (pool.Tombstone, bool, error) {
	s, ok := t[k]
	return s, ok, nil
}

func (t tombstones) Remove(k attachment.Key) error {
	delete(t, k)
	return nil
}

// refusal is the pool's refusal in err; the test fails without one.
func refusal(t *testing.T, err error) *pool.Refusal {
	t.Helper()
	r, ok := errors.AsType[*pool.Refusal](err)
	if !ok {
		t.Fatalf("%v is no refusal", err)
	}
	return r
}
