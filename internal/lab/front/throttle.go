// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package front

import (
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/multus-vpc/multus-vpc/internal/lab/strictyaml"
)

// Throttle holds EC2's request rate limits: one token bucket for each action, per account and Region, shared by all
// callers. An action without an entry has a bucket of the size of its class in Default; without that it has no limit.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
type Throttle struct {
	Default Classes           `json:"default"`
	Actions map[string]Bucket `json:",inline"` // beside the key default, by name of the action
}

// Classes are the sizes for actions that have no entry of their own.
type Classes struct {
	Read  *Bucket `json:"read"`  // Describe… and Get…
	Write *Bucket `json:"write"` // all others
}

// Bucket is the size of a token bucket. It starts full; a call takes one token, and is refused when there is none.
type Bucket struct {
	Burst  *int     `json:"burst"`  // tokens when full; required, 0 refuses every call
	Refill *float64 `json:"refill"` // tokens per second; required, 0 never refills
}

// NewBucket is a Bucket with both values set.
func NewBucket(burst int, refill float64) *Bucket { return &Bucket{Burst: &burst, Refill: &refill} }

func (t Throttle) validate(path string, actions []string, p *strictyaml.Problems) {
	classes := strictyaml.Join(path, "default")
	if t.Default.Read != nil {
		t.Default.Read.validate(strictyaml.Join(classes, "read"), p)
	}
	if t.Default.Write != nil {
		t.Default.Write.validate(strictyaml.Join(classes, "write"), p)
	}
	for _, action := range slices.Sorted(maps.Keys(t.Actions)) {
		at := strictyaml.Join(path, action)
		validateAction(action, at, actions, p)
		t.Actions[action].validate(at, p)
	}
}

func (b Bucket) validate(path string, p *strictyaml.Problems) {
	if b.Burst == nil {
		p.Addf(strictyaml.Join(path, "burst"), "is missing")
	} else if *b.Burst < 0 {
		p.Addf(strictyaml.Join(path, "burst"), "must not be negative")
	}
	if b.Refill == nil {
		p.Addf(strictyaml.Join(path, "refill"), "is missing")
	} else if *b.Refill < 0 {
		p.Addf(strictyaml.Join(path, "refill"), "must not be negative")
	}
}

// of is the size of the action's bucket, nil without a limit.
func (t Throttle) of(action string) *Bucket {
	if b, ok := t.Actions[action]; ok {
		return &b
	}
	if strings.HasPrefix(action, "Describe") || strings.HasPrefix(action, "Get") {
		return t.Default.Read
	}
	return t.Default.Write
}

// buckets are the live ones, made at the first call of each action.
type buckets struct {
	sizes Throttle
	live  map[string]*rate.Limiter
}

func newBuckets(sizes Throttle) buckets {
	return buckets{sizes: sizes, live: make(map[string]*rate.Limiter)}
}

// take takes a token for one call of action, and reports whether there was one.
func (b buckets) take(action string, now time.Time) bool {
	limiter, ok := b.live[action]
	if !ok {
		size := b.sizes.of(action)
		if size == nil {
			return true
		}
		limiter = rate.NewLimiter(rate.Limit(*size.Refill), *size.Burst)
		b.live[action] = limiter
	}
	return limiter.AllowN(now, 1)
}
