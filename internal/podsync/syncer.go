// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Timings that follow from EC2 and from what pods do.
const (
	// claimInterval is how far apart two claims of one address are at least: an address that flaps a thousand times a second
	// costs one EC2 call a second.
	claimInterval = time.Second
	// gatherTime is how long after an address that is claimed at once others are waited for, to be claimed together: a failover moves
	// all addresses of a VRRP instance within a millisecond or two, and one call for all of them is sooner done than one for each.
	gatherTime = 5 * time.Millisecond
	// backoffBase and backoffCap bound the full-jitter back-off.
	// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
	backoffBase = 500 * time.Millisecond
	backoffCap  = time.Minute
	// leaveCap bounds it at the end of a pod, which has half a minute for all that it does then.
	leaveCap = 2 * time.Second
	// listAgain is how long after interfaces could not be listed they are listed again.
	listAgain = time.Second
)

// Syncer keeps EC2 in step with one pod. Make it with [New], run it with [Syncer.Run]; [Syncer.Report] and [Syncer.Leave] are safe
// to call from elsewhere, Leave after Run has returned.
type Syncer struct {
	cfg     Config
	pod     Pod
	vpc     Registrar
	wake    chan struct{}
	stepped chan struct{} // has a value after something was looked at

	queue  sync.Mutex          // of events alone, so that tell waits for nothing
	events []attachment.Change // in order, not looked at yet

	mu       sync.Mutex
	entries  map[netip.Addr]*entry
	byIndex  map[int]attachment.Interface // as last listed
	seen     bool                         // the interfaces have been listed
	blind    time.Time                    // they could not be, the last time: to be listed again then
	answered []answer                     // of calls that have ended
	gathered time.Time                    // addresses that appear before are claimed together then
	shown    []InterfaceReport
	reported Report
}

// entry is one address that the pod carries or carried.
type entry struct {
	addr     netip.Addr
	by       attachment.Interface
	state    string
	conflict attachment.OnConflict // of the next claim
	appeared time.Time             // the edge
	claimed  time.Time             // when the last claim left
	busy     bool                  // a call about it is under way
	abandon  context.CancelFunc    // ends the claim or the look that is under way; nil without one
	ours     bool                  // a claim of ours changed EC2
	tries    int
	next     time.Time // no claim before
	until    time.Time // Leaving: given back then
	err      error
}

// answer is what a call has brought for one address.
type answer struct {
	addr     netip.Addr
	appeared time.Time // the edge that the call was about
	Result
	release  bool
	standing *attachment.Standing
}

// New makes the syncer of one pod.
func New(cfg Config, pod Pod, vpc Registrar) *Syncer {
	return &Syncer{
		cfg: cfg, pod: pod, vpc: vpc, wake: make(chan struct{}, 1), stepped: make(chan struct{}, 1),
		entries: map[netip.Addr]*entry{}, byIndex: map[int]attachment.Interface{},
	}
}

// Run keeps EC2 in step until ctx ends, and waits for calls that are under way. The error is the kernel's: the pod's namespace
// cannot be watched.
func (s *Syncer) Run(ctx context.Context) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	calls.Go(func() { failed <- s.pod.Watch(ctx, s.tell) })
	check := time.NewTicker(s.cfg.CheckInterval)
	defer check.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due := s.step(ctx, &calls)
		timer.Reset(due)
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-s.wake:
		case <-timer.C:
		case <-check.C:
			s.look(ctx, &calls)
		}
	}
}

// Report says what the pod's addresses are up to.
func (s *Syncer) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report()
}

// Seen reports whether the pod's interfaces have been read: before that, a report is empty.
func (s *Syncer) Seen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// report is Report with s.mu held.
func (s *Syncer) report() Report {
	r := Report{Interfaces: slices.Clone(s.shown)}
	for _, e := range s.entries {
		a := AddressReport{Addr: e.addr, Interface: e.by.Name, State: e.state, Floating: s.cfg.floats(e.addr)}
		if e.err != nil {
			a.Error, a.Refused = e.err.Error(), errors.Is(e.err, ErrRefused)
		}
		r.Addresses = append(r.Addresses, a)
	}
	slices.SortFunc(r.Addresses, func(a, b AddressReport) int { return a.Addr.Compare(b.Addr) })
	return r
}

// tell queues an event. It takes a lock of its own: s.mu is held while the pod's interfaces are read, and who tells may hold what
// that needs.
func (s *Syncer) tell(e attachment.Change) {
	s.queue.Lock()
	s.events = append(s.events, e)
	s.queue.Unlock()
	poke(s.wake)
}

// told is what tell has queued.
func (s *Syncer) told() []attachment.Change {
	s.queue.Lock()
	defer s.queue.Unlock()
	events := s.events
	s.events = nil
	return events
}

// step does all that can be done now, and says how long nothing more is due.
func (s *Syncer) step(ctx context.Context, calls *sync.WaitGroup) time.Duration {
	s.mu.Lock()
	s.file()
	s.follow()
	claims, releases, due := s.plan(time.Now())
	s.arm(ctx, claims)
	now := s.report()
	changed := !equal(now, s.reported)
	s.reported = now
	s.mu.Unlock()
	if changed {
		s.cfg.Changed(now)
	}
	poke(s.stepped)
	for _, c := range claims {
		calls.Go(func() {
			defer c.cancel()
			s.register(c.ctx, c)
		})
	}
	for _, r := range releases {
		calls.Go(func() { s.release(ctx, r) })
	}
	return due
}

// arm makes each call one that an edge of its addresses ends. The caller holds s.mu.
func (s *Syncer) arm(ctx context.Context, calls []batch) {
	for i := range calls {
		c := &calls[i]
		c.ctx, c.cancel = context.WithCancel(ctx)
		for _, a := range c.entries {
			s.entries[a.addr].abandon = c.cancel
		}
	}
}

// over ends a call that an edge has made pointless: it would wait half a minute for EC2 to confirm what somebody else has by
// now, or for a slow answer, and hold up the claim that the next edge asks for.
func (e *entry) over() {
	if e.busy && e.abandon != nil {
		e.abandon()
	}
}

// follow brings the entries up to what the events say. The caller holds s.mu.
func (s *Syncer) follow() {
	for _, e := range s.told() {
		i, known := s.byIndex[e.Index]
		switch {
		case e == attachment.Change{} || !known && !e.Gone:
			s.compare()
		case e.Gone:
			s.went(e.Addr.Addr(), e.Index)
		case routable(e.Addr.Addr()) && i.Kind == attachment.KindIPVlan:
			s.came(e.Addr.Addr(), i)
		}
	}
	if !s.blind.IsZero() && !time.Now().Before(s.blind) {
		s.compare()
	}
	if now := time.Now(); !now.Before(s.gathered) && s.pending(now) {
		s.gathered = now.Add(gatherTime)
	}
}

// pending reports whether something that appeared is to be claimed now. The caller holds s.mu.
func (s *Syncer) pending(now time.Time) bool {
	for _, e := range s.entries {
		if e.state == Pending && !e.busy && e.tries == 0 && !e.next.After(now) {
			return true
		}
	}
	return false
}

// compare makes up for events that may have been missed. The caller holds s.mu.
func (s *Syncer) compare() {
	interfaces, err := s.pod.Interfaces()
	if err != nil {
		s.cfg.Log.Error("the pod's interfaces cannot be read", "error", err, "again", listAgain)
		s.blind = time.Now().Add(listAgain)
		return
	}
	s.blind = time.Time{}
	known := s.cfg.Known
	if s.seen || known == nil {
		known = func(netip.Addr) bool { return false }
	}
	s.seen = true
	clear(s.byIndex)
	for _, i := range interfaces {
		s.byIndex[i.Index] = i
	}
	shown := describe(interfaces)
	for _, i := range shown {
		if i.Useless && !slices.Contains(s.shown, i) {
			s.cfg.Log.Warn("interface ignored", "interface", i.Name, "reason", i.Ignored)
		}
	}
	s.shown = shown
	here := map[netip.Addr]bool{}
	for _, c := range desired(interfaces) {
		here[c.addr] = true
		s.came(c.addr, c.by)
		if known(c.addr) {
			s.entries[c.addr].conflict = attachment.Never
		}
	}
	for a, e := range s.entries {
		if !here[a] {
			s.went(a, e.by.Index)
		}
	}
}

// came is the edge: an address appeared. The caller holds s.mu.
func (s *Syncer) came(a netip.Addr, i attachment.Interface) {
	e := s.entries[a]
	if e != nil && e.state != Leaving && e.by.Index == i.Index {
		e.by = i // renamed, perhaps
		return
	}
	if e == nil {
		e = &entry{addr: a}
		s.entries[a] = e
	}
	e.over()
	now := time.Now()
	e.by, e.state, e.appeared, e.conflict, e.tries, e.err = i, Pending, now, s.cfg.conflictFor(a), 0, nil
	e.next = now
	if now.Before(s.gathered) {
		e.next = s.gathered
	}
	if again := e.claimed.Add(claimInterval); again.After(e.next) {
		e.next = again
	}
	s.cfg.Moved(i, a, true)
	s.cfg.Log.Info("address appeared", "ip", a, "interface", i.Name)
}

// went is the other edge. The caller holds s.mu.
func (s *Syncer) went(a netip.Addr, index int) {
	e := s.entries[a]
	if e == nil || e.state == Leaving || e.by.Index != index {
		return
	}
	e.over()
	e.state, e.until, e.err = Leaving, time.Now().Add(s.cfg.Grace), nil
	s.cfg.Moved(e.by, a, false)
	s.cfg.Log.Info("address went", "ip", a, "interface", e.by.Name)
}

// batch is what one call is about.
type batch struct {
	by       attachment.Interface
	conflict attachment.OnConflict
	entries  []answer // the addresses, and which edge the call is about
	ctx      context.Context
	cancel   context.CancelFunc
}

func (b batch) addrs() []netip.Addr {
	addrs := make([]netip.Addr, len(b.entries))
	for i, e := range b.entries {
		addrs[i] = e.addr
	}
	return addrs
}

// plan takes down what is due now, one batch for each interface, and marks it as under way. The caller holds s.mu.
func (s *Syncer) plan(now time.Time) (claims, releases []batch, due time.Duration) {
	due = time.Hour
	if !s.blind.IsZero() {
		due = s.blind.Sub(now)
	}
	for _, e := range slices.SortedFunc(maps.Values(s.entries), func(a, b *entry) int { return a.addr.Compare(b.addr) }) {
		at, list := e.next, &claims
		if e.state == Leaving {
			at, list = e.until, &releases
			if !e.ours || s.cfg.KeepFloating && s.cfg.floats(e.addr) { // not ours to give back
				at, list = e.claimed.Add(claimInterval), nil // known until it may be claimed again
			}
		}
		if e.busy || e.state == Registered || e.state == Contested {
			continue
		}
		if wait := at.Sub(now); wait > 0 {
			due = min(due, wait)
			continue
		}
		if list == nil {
			delete(s.entries, e.addr)
			continue
		}
		e.busy = true
		if e.state == Pending {
			if e.claimed.Before(e.appeared) {
				s.cfg.Claimed(now.Sub(e.appeared))
			}
			e.claimed = now
		}
		*list = into(*list, e)
	}
	return claims, releases, due
}

// into adds the entry to the batch that it belongs to.
func into(batches []batch, e *entry) []batch {
	a := answer{addr: e.addr, appeared: e.appeared}
	for i := range batches {
		if batches[i].by.Index == e.by.Index && batches[i].conflict == e.conflict {
			batches[i].entries = append(batches[i].entries, a)
			return batches
		}
	}
	return append(batches, batch{by: e.by, conflict: e.conflict, entries: []answer{a}})
}

// answer takes what a call has brought back to the loop.
func (s *Syncer) answer(as []answer) {
	s.mu.Lock()
	s.answered = append(s.answered, as...)
	s.mu.Unlock()
	poke(s.wake)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func equal(a, b Report) bool {
	return slices.Equal(a.Interfaces, b.Interfaces) && slices.Equal(a.Addresses, b.Addresses)
}
