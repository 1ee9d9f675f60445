// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// register has EC2 know what the batch is about.
func (s *Syncer) register(ctx context.Context, b batch) {
	results := s.vpc.Register(ctx, b.by, b.addrs(), b.conflict)
	for i := range b.entries {
		b.entries[i].Result = results[b.entries[i].addr]
	}
	s.answer(b.entries)
}

// release gives back what the batch is about.
func (s *Syncer) release(ctx context.Context, b batch) {
	err := s.vpc.Release(ctx, b.by, b.addrs())
	for i := range b.entries {
		b.entries[i].Err, b.entries[i].release = err, true
	}
	s.answer(b.entries)
}

// look compares what EC2 says with what we believe.
func (s *Syncer) look(ctx context.Context, calls *sync.WaitGroup) {
	s.mu.Lock()
	s.compare() // an event that the kernel lost shows here at the latest
	var asks []batch
	for _, e := range s.entries {
		settled := time.Since(e.claimed) >= readsBehind // before that, reads may show how it was
		if !e.busy && settled && (e.state == Registered || e.state == Contested) {
			e.busy = true
			asks = into(asks, e)
		}
	}
	s.arm(ctx, asks)
	s.mu.Unlock()
	for _, b := range asks {
		calls.Go(func() {
			defer b.cancel()
			standings, err := s.vpc.Standing(b.ctx, b.by, b.addrs())
			for i := range b.entries {
				standing := standings[b.entries[i].addr]
				b.entries[i].standing, b.entries[i].Err = &standing, err
			}
			s.answer(b.entries)
		})
	}
}

// file applies what calls have brought. The caller holds s.mu.
func (s *Syncer) file() {
	for _, a := range s.answered {
		e := s.entries[a.addr]
		if e == nil {
			continue
		}
		e.busy, e.abandon = false, nil
		switch {
		case a.standing != nil:
			s.fileStanding(e, a)
		case a.release:
			s.fileRelease(e, a)
		default:
			s.fileClaim(e, a)
		}
	}
	s.answered = nil
}

// fileClaim applies what a claim has brought. The caller holds s.mu.
func (s *Syncer) fileClaim(e *entry, a answer) {
	cut := errors.Is(a.Err, context.Canceled) // EC2 may have done it all the same
	e.ours = e.ours || a.New || cut
	if e.state != Pending || !e.appeared.Equal(a.appeared) {
		return // it went meanwhile, or went and came: the next step sees to that
	}
	if cut { // because of another address of the call
		e.next = time.Now()
		return
	}
	e.err = a.Err
	switch {
	case a.Err == nil:
		e.state, e.tries = Registered, 0
		s.cfg.Log.Info("address registered", "ip", e.addr, "interface", e.by.Name, "new", a.New)
	case errors.Is(a.Err, ErrContested):
		s.contest(e)
	default:
		pause := rand.N(min(backoffCap, backoffBase<<min(e.tries, 20))) + claimInterval/10
		if errors.Is(a.Err, ErrRefused) {
			pause = backoffCap
		}
		if errors.Is(a.Err, errUnconfirmed) {
			e.conflict = attachment.Never // whoever has it by now took it after us
		}
		e.tries++
		e.next = time.Now().Add(pause)
		s.cfg.Log.Error("address not registered", "ip", e.addr, "interface", e.by.Name, "error", a.Err, "again", pause)
	}
}

// contest leaves the address to who has it. The caller holds s.mu.
func (s *Syncer) contest(e *entry) {
	e.state, e.ours, e.err = Contested, false, cmp.Or(e.err, ErrContested)
	s.cfg.Log.Warn("address contested: another ENI has it, and the pod carries it", "ip", e.addr, "interface", e.by.Name)
	s.cfg.Contested(e.by, e.addr)
}

// fileRelease applies what a release has brought. The caller holds s.mu.
func (s *Syncer) fileRelease(e *entry, a answer) {
	switch {
	case e.state != Leaving: // it came back, and EC2 may not have it any more
		e.ours = a.Err != nil
		e.next = time.Now()
	case a.Err == nil:
		s.cfg.Log.Info("address given back", "ip", e.addr, "interface", e.by.Name)
		delete(s.entries, e.addr)
	default:
		e.err = a.Err
		e.until = time.Now().Add(rand.N(min(backoffCap, backoffBase<<min(e.tries, 20))) + claimInterval/10)
		e.tries++
		s.cfg.Log.Error("address not given back", "ip", e.addr, "error", a.Err)
	}
}

// fileStanding applies what EC2 says of an address. The caller holds s.mu.
func (s *Syncer) fileStanding(e *entry, a answer) {
	if errors.Is(a.Err, context.Canceled) {
		return // an edge had no time to wait for it
	}
	if a.Err != nil {
		s.cfg.Log.Warn("addresses not compared with EC2", "ip", e.addr, "error", a.Err)
		return
	}
	if !e.appeared.Equal(a.appeared) {
		return
	}
	switch {
	case *a.standing == attachment.Elsewhere && e.state == Registered:
		s.contest(e)
	case *a.standing == attachment.Here && e.state == Contested:
		e.state, e.err = Registered, nil
	case *a.standing == attachment.Nobody && e.state != Leaving:
		// Nobody has it and the pod carries it: claimed again, and taken from nobody who is faster.
		e.state, e.conflict, e.next = Pending, attachment.Never, time.Now()
	}
}

// Leave gives back what the pod was given by this syncer's claims and EC2 still says is here; floating addresses stay where
// [Config.KeepFloating] says so. What fails is tried again until ctx ends. It is for the end of the pod, after [Syncer.Run].
func (s *Syncer) Leave(ctx context.Context) error {
	s.mu.Lock()
	s.file()
	var batches []batch
	for a, e := range s.entries {
		if e.ours && (!s.cfg.KeepFloating || !s.cfg.floats(a)) {
			e.conflict = ""
			batches = into(batches, e)
		}
	}
	s.mu.Unlock()
	errs := make([]error, len(batches))
	var calls sync.WaitGroup
	for i, b := range batches {
		calls.Go(func() { errs[i] = s.leave(ctx, b) })
	}
	calls.Wait()
	return errors.Join(errs...)
}

// leave gives one batch back, and tries until ctx ends unless that is of no use.
func (s *Syncer) leave(ctx context.Context, b batch) error {
	for tries := 0; ; tries++ {
		err := s.vpc.Release(ctx, b.by, b.addrs())
		if err == nil || errors.Is(err, ErrRefused) {
			return err
		}
		s.cfg.Log.Warn("addresses not given back yet", "ips", b.addrs(), "error", err)
		if perr := pause(ctx, rand.N(min(leaveCap, backoffBase<<min(tries, 20)))); perr != nil {
			return errors.Join(err, perr)
		}
	}
}
