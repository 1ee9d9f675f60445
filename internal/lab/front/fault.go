// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package front

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/strictyaml"
)

// Kind is what goes wrong.
type Kind string

// The kinds of [Fault].
const (
	LostReply   Kind = "lost-reply"   // the request takes effect, then the connection closes without a reply
	ErrorBefore Kind = "error-before" // the request has no effect and is answered with an error
	ErrorAfter  Kind = "error-after"  // the request takes effect and is answered with an error all the same
	ServerError Kind = "5xx"          // the request has no effect; the answer is a server's error, so the caller cannot know
	Slow        Kind = "slow"         // the request takes effect, the reply comes late
)

func kinds() []Kind { return []Kind{LostReply, ErrorBefore, ErrorAfter, ServerError, Slow} }

// Fault makes calls of an action go wrong. Calls are counted from when the fault was set, without throttled ones. When
// several faults hit one call, the first of the list is what happens.
type Fault struct {
	// Action of the EC2 API; empty means every action.
	Action string `json:"action"`
	// Nth is the first call that goes wrong, from 1 (the default, unless Probability is set).
	Nth int `json:"nth"`
	// Count is how many calls go wrong: from Nth on, by default 1; with Probability at most so many, by default all.
	Count int `json:"count"`
	// Probability of each call to go wrong, above 0 and up to 1; instead of Nth.
	Probability float64 `json:"probability"`
	// Kind of fault; required.
	Kind Kind `json:"kind"`
	// Code is the EC2 error code that the kinds error-before and error-after (default InternalError) and 5xx (default
	// Unavailable, and only codes that EC2 answers with a 5xx status) answer with.
	Code string `json:"code"`
	// Delay of the kind slow, default 5s.
	Delay time.Duration `json:"delay"`
}

const defaultSlowDelay = 5 * time.Second

func (x *Fault) before() bool { return x.Kind == ErrorBefore || x.Kind == ServerError }

func (x *Fault) delay() time.Duration { return cmp.Or(x.Delay, defaultSlowDelay) }

func (x *Fault) code() string {
	if x.Kind == ServerError {
		return cmp.Or(x.Code, "Unavailable")
	}
	return cmp.Or(x.Code, "InternalError")
}

// ValidateFaults reports what is wrong with a list of faults that stands at path.
func ValidateFaults(faults []Fault, path string, actions []string, p *strictyaml.Problems) {
	for i, x := range faults {
		x.validate(fmt.Sprintf("%s[%d]", path, i), actions, p)
	}
}

func (x *Fault) validate(path string, actions []string, p *strictyaml.Problems) {
	problem := func(field, format string, args ...any) { p.Addf(strictyaml.Join(path, field), format, args...) }
	if x.Action != "" {
		validateAction(x.Action, strictyaml.Join(path, "action"), actions, p)
	}
	if x.Nth < 0 {
		problem("nth", "must be 1 or more")
	}
	if x.Count < 0 {
		problem("count", "must be 1 or more")
	}
	if x.Probability < 0 || x.Probability > 1 {
		problem("probability", "must be above 0 and at most 1")
	}
	if x.Probability > 0 && x.Nth > 0 {
		problem("probability", "cannot stand with nth")
	}
	if !slices.Contains(kinds(), x.Kind) {
		problem("kind", "%q is not one of %s", x.Kind, joined(kinds()))
		return
	}
	if x.Code != "" && (x.Kind == LostReply || x.Kind == Slow) {
		problem("code", "a fault of kind %s answers no error", x.Kind)
	}
	if x.Code != "" && x.Kind == ServerError && statusOf(x.Code) < http.StatusInternalServerError {
		problem("code", "EC2 answers %s with status %d, not 5xx; use error-before", x.Code, statusOf(x.Code))
	}
	if x.Delay != 0 && x.Kind != Slow {
		problem("delay", "a fault of kind %s has none", x.Kind)
	}
	if x.Delay < 0 {
		problem("delay", "must not be negative")
	}
}

func validateAction(action, path string, actions []string, p *strictyaml.Problems) {
	if len(actions) > 0 && !slices.Contains(actions, action) {
		p.Addf(path, "%q is not an action that the lab knows (%s)", action, strings.Join(slices.Sorted(slices.Values(actions)), ", "))
	}
}

func joined(k []Kind) string {
	s := make([]string, len(k))
	for i := range k {
		s[i] = string(k[i])
	}
	return strings.Join(s, ", ")
}

// faultSet counts calls against faults.
type faultSet struct {
	seed   uint64
	faults []*armedFault
}

type armedFault struct {
	Fault
	seen, fired int
}

func newFaultSet(faults []Fault, seed uint64) faultSet {
	s := faultSet{seed: seed}
	for _, x := range faults {
		if x.Probability == 0 {
			x.Nth, x.Count = cmp.Or(x.Nth, 1), cmp.Or(x.Count, 1)
		}
		s.faults = append(s.faults, &armedFault{Fault: x})
	}
	return s
}

// next counts one call of action and returns the fault that it meets, or nil.
func (s *faultSet) next(action string) *Fault {
	var met *Fault
	for i, x := range s.faults {
		if x.Action != "" && x.Action != action {
			continue
		}
		x.seen++
		if met == nil && x.hits(s.seed, uint64(i)) {
			x.fired++
			met = &x.Fault
		}
	}
	return met
}

func (x *armedFault) hits(seed, index uint64) bool {
	if x.Probability == 0 {
		return x.seen >= x.Nth && x.seen < x.Nth+x.Count
	}
	if x.Count > 0 && x.fired >= x.Count {
		return false
	}
	// The n-th call always meets the same fate, however the calls of other actions interleave.
	roll := rand.New(rand.NewPCG(seed, index<<32|uint64(x.seen)))
	return roll.Float64() < x.Probability
}
