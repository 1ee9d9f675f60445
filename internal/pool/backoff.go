// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"math/rand/v2"
	"slices"
	"time"
)

// result keeps the back-off: a failure makes the next attempt wait a random time that may double, success ends it. Of calls that
// left together the first to fail makes the pause for all. With nobody waiting it is longer from the start: whoever is waited for
// elsewhere in the account comes first.
func (p *iface) result(err error) {
	if err == nil {
		p.w.attempt, p.w.resume, p.w.hurried = 0, time.Time{}, false
		return
	}
	if time.Now().Before(p.w.resume) {
		return
	}
	bound := min(backoffBase<<min(p.w.attempt, 7), backoffCap)
	if len(p.waiters) == 0 {
		bound = min(bound*calm, backoffCap)
	}
	if p.w.hurried {
		bound, p.w.hurried = min(bound, p.soon()), false
	}
	p.w.attempt++
	p.w.resume = time.Now().Add(rand.N(bound))
}

// hurry shortens the pause that was made when nobody waited, and the next one if a call is under way, for those who wait now: in
// time for an ADD, and not at once, for the same has happened on other workers. Whoever comes while others wait changes nothing. The
// caller holds n.mu.
func (p *iface) hurry(newcomers ...*waiter) {
	if len(p.waiters) == 0 || slices.ContainsFunc(p.waiters, func(w *waiter) bool { return !slices.Contains(newcomers, w) }) {
		return
	}
	p.w.hurried = true
	if p.w.resume.After(time.Now().Add(p.soon())) {
		p.w.resume = time.Now().Add(rand.N(p.soon()))
	}
}

// soon is the longest pause that leaves an ADD time for another attempt.
func (p *iface) soon() time.Duration { return p.n.cfg.MaxWait / 3 }
