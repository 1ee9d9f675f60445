// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sample = `{"version":"0","id":"1","detail-type":"EC2 Instance-launch Lifecycle Action","source":"aws.autoscaling",
 "resources":["arn:a","arn:b"],"detail":{"AutoScalingGroupName":"workers-1","n":3,"none":null}}`

func TestPatterns(t *testing.T) {
	for pattern, want := range map[string]bool{
		`{"source":["aws.autoscaling"]}`:           true,
		`{"source":["aws.ec2","aws.autoscaling"]}`: true,
		`{"source":["aws.ec2"]}`:                   false,
		`{"source":["AWS.autoscaling"]}`:           false,
		`{"source":["aws.autoscaling"],"detail":{"AutoScalingGroupName":["workers-2"]}}`:   false,
		`{"detail":{"AutoScalingGroupName":[{"prefix":"workers-"}]}}`:                      true,
		`{"detail":{"AutoScalingGroupName":[{"prefix":"masters-"},{"suffix":"-1"}]}}`:      true,
		`{"detail":{"AutoScalingGroupName":[{"anything-but":["workers-1","workers-2"]}]}}`: false,
		`{"detail":{"AutoScalingGroupName":[{"anything-but":"workers-2"}]}}`:               true,
		`{"detail":{"Missing":[{"anything-but":"x"}]}}`:                                    false,
		`{"detail":{"Missing":[{"exists":false}]}}`:                                        true,
		`{"detail":{"n":[{"exists":true}]}}`:                                               true,
		`{"detail":{"Missing":{"deeper":[{"exists":false}]}}}`:                             true,
		`{"detail":{"n":[3]}}`:       true,
		`{"detail":{"n":["3"]}}`:     false,
		`{"detail":{"none":[null]}}`: true,
		`{"resources":["arn:b"]}`:    true,
		`{"resources":["arn:c"]}`:    false,
	} {
		p, err := ParsePattern([]byte(pattern))
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		if got := p.Matches([]byte(sample)); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
	if (Pattern{}).Matches([]byte(sample)) {
		t.Error("the zero pattern matches")
	}
}

func TestPatternsAreReadStrictly(t *testing.T) {
	for pattern, want := range map[string]string{
		``:                     "EOF",
		`{}`:                   "it is empty",
		`{"source":["a"]} x`:   "more than one value",
		`{"source":"aws.ec2"}`: "source: must be an object or a list",
		`{"detail":{"a":[]}}`:  "detail.a: a list must have a value",
		`{"detail":{}}`:        "detail: an object must have a field",
		`{"detail":{"a":[{"cidr":"10.0.0.0/8"}]}}`:           `detail.a: the filter "cidr" is not implemented`,
		`{"detail":{"a":[{"prefix":1}]}}`:                    "detail.a: the filter prefix takes a string",
		`{"detail":{"a":[{"exists":"yes"}]}}`:                "detail.a: the filter exists takes true or false",
		`{"detail":{"a":[{"anything-but":{"prefix":"a"}}]}}`: "detail.a: the filter anything-but of other than strings and numbers is not implemented",
		`{"detail":{"a":[{"prefix":"a","suffix":"b"}]}}`:     "detail.a: a filter has one key",
		`{"detail":{"a":[["b"]]}}`:                           "detail.a: lists in lists match nothing",
	} {
		_, err := ParsePattern([]byte(pattern))
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", pattern, err, want)
		}
	}
}

func FuzzPatterns(f *testing.F) {
	f.Add([]byte(`{"source":["aws.autoscaling"],"detail":{"a":[{"prefix":"x"},null,1,true]}}`), []byte(sample))
	f.Add([]byte(`{"detail":{"a":[{"exists":false}]}}`), []byte(`{"detail":[1]}`))
	f.Fuzz(func(t *testing.T, pattern, event []byte) {
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		var doc map[string]any
		if p.Matches(event) && json.Unmarshal(event, &doc) != nil {
			t.Errorf("%s matches %s", pattern, event)
		}
	})
}

// record is a target that fails as often as it is told, and what it got when.
type record struct {
	mu    sync.Mutex
	fails int
	start time.Time
	got   []string
	times []time.Duration
}

func (r *record) take(_ context.Context, event []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e Event
	if err := json.Unmarshal(event, &e); err != nil {
		return err
	}
	r.times = append(r.times, time.Since(r.start))
	r.got = append(r.got, strings.Trim(string(e.Detail), `{}"n:`))
	if r.fails > 0 {
		r.fails--
		return errors.New("not now")
	}
	return nil
}

// deliver puts n events, "1" and so on, on a bus with mischief, and returns what a target has got after a day.
func deliver(t *testing.T, n int, m Mischief, r *record) {
	t.Helper()
	p, err := ParsePattern([]byte(`{"source":["test"]}`))
	if err != nil {
		t.Fatal(err)
	}
	b := New(Config{Account: "123456789012", Region: "us-west-2", Mischief: m, Seed: 7})
	if err := b.PutRule(Rule{Name: "r", Pattern: &p, Targets: []Target{r.take}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx) })
	r.start = time.Now()
	for i := range n {
		b.Put(Event{Source: "test", Detail: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i+1))})
	}
	b.Put(Event{Source: "other"})
	time.Sleep(25 * time.Hour)
	cancel()
	running.Wait()
}

func TestEachEventIsDeliveredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		deliver(t, 3, Mischief{}, &r)
		slices.Sort(r.got) // started in order, but each by itself
		if diff := cmp.Diff([]string{"1", "2", "3"}, r.got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDuplicatesAndOvertakingOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		deliver(t, 5, Mischief{Duplicates: 1, Delay: time.Minute}, &r)
		if slices.IsSorted(r.got) {
			t.Errorf("in order: %v", r.got)
		}
		if last := r.times[len(r.times)-1]; last > time.Minute {
			t.Errorf("the last delivery took %v", last)
		}
		slices.Sort(r.got)
		if diff := cmp.Diff([]string{"1", "1", "2", "2", "3", "3", "4", "4", "5", "5"}, r.got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestATargetThatFailsIsTriedForADay(t *testing.T) {
	for name, tc := range map[string]struct{ fails, least, most int }{
		"twice":    {2, 3, 3},
		"for ever": {1000, 140, maxAttempts},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := record{fails: tc.fails}
				deliver(t, 1, Mischief{}, &r)
				if n := len(r.got); n < tc.least || n > tc.most {
					t.Errorf("%d attempts, want %d to %d", n, tc.least, tc.most)
				}
			})
		})
	}
}

func TestSchedules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Account: "123456789012", Region: "us-west-2"})
		var got []Event
		var mu sync.Mutex
		take := func(_ context.Context, event []byte) error {
			mu.Lock()
			defer mu.Unlock()
			var e Event
			err := json.Unmarshal(event, &e)
			got = append(got, e)
			return err
		}
		if err := b.PutRule(Rule{Name: "sweep", Every: time.Hour, Targets: []Target{take}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { b.Run(ctx) })
		time.Sleep(3*time.Hour + time.Minute)
		b.DeleteRule("sweep")
		time.Sleep(3 * time.Hour)
		cancel()
		running.Wait()
		if len(got) != 3 || got[0].DetailType != "Scheduled Event" || got[0].Source != "aws.events" ||
			got[0].Resources[0] != "arn:aws:events:us-west-2:123456789012:rule/sweep" {
			t.Errorf("%+v", got)
		}
	})
}

func TestATurnComesWhenItIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		var turns atomic.Int32
		take := func(context.Context, []byte) error { turns.Add(1); return nil }
		for _, r := range []Rule{{Name: "sweep", Every: time.Hour, Targets: []Target{take}}, {Name: "off", Every: time.Hour, Disabled: true}, {Name: "pattern", Pattern: &Pattern{}}} {
			if err := b.PutRule(r); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"off", "pattern", "absent"} {
			if err := b.Turn(name); err == nil {
				t.Errorf("the rule %s takes a turn", name)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { b.Run(ctx) })
		time.Sleep(30 * time.Minute)
		if err := b.Turn("sweep"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := turns.Load(); n != 1 {
			t.Errorf("%d turns, want 1 at once", n)
		}
		time.Sleep(59 * time.Minute)
		if n := turns.Load(); n != 1 {
			t.Errorf("%d turns, want the next an hour later", n)
		}
		time.Sleep(2 * time.Minute)
		cancel()
		running.Wait()
		if n := turns.Load(); n != 2 {
			t.Errorf("%d turns, want 2", n)
		}
	})
}

func TestRulesNeedAPatternOrASchedule(t *testing.T) {
	b := New(Config{})
	for _, r := range []Rule{{}, {Name: "x"}, {Name: "x", Pattern: &Pattern{}, Every: time.Hour}, {Name: "x", Every: -1}} {
		if err := b.PutRule(r); err == nil {
			t.Errorf("%+v is accepted", r)
		}
	}
}
