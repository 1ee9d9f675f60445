// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// deaths are the ways to die at a call.
var deaths = []string{"before it", "after it, the reply lost"}

// dying ends ctx at the n-th request, and lets none through after it, as the end of a process does.
func dying(cancel context.CancelFunc, n int, death string, died *bool) func(http.RoundTripper) http.RoundTripper {
	var mu sync.Mutex
	seen := 0
	return func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			seen++
			at := seen
			mu.Unlock()
			if at < n {
				return next.RoundTrip(r)
			}
			*died = true
			cancel()
			if at == n && death != deaths[0] {
				if resp, err := next.RoundTrip(r.WithContext(context.WithoutCancel(r.Context()))); err == nil {
					_ = resp.Body.Close()
				}
			}
			return nil, errors.New("the process has ended")
		})
	}
}

// lags are how late EC2 shows what was done.
var lags = map[string]string{
	"at once": "",
	"late":    "ec2: {latency: 80ms, propagation: {route: 1s, imds: 3s, describe: 3s}}\n",
}

// policyByTags makes what EC2 does not know "UnauthorizedOperation" to those who change it, as it is under a policy that asks for its tags:
// https://github.com/hashicorp/terraform-provider-aws/pull/46211.
func policyByTags(next http.RoundTripper) http.RoundTripper {
	return transport(func(r *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err != nil || resp.StatusCode != http.StatusBadRequest {
			return resp, err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		body = notFound.ReplaceAll(body, []byte("<Code>UnauthorizedOperation</Code>"))
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		return resp, err
	})
}

var notFound = regexp.MustCompile(`<Code>Invalid(NetworkInterfaceID|AttachmentID|InstanceID)\.NotFound</Code>`)

// sky is what a story happens under.
type sky struct {
	lag, death string
	byTags     bool
}

// worst are skies that together have all that the others have; allSkies are those too.
var (
	worst    = []sky{{"late", deaths[0], false}, {"late", deaths[1], true}}
	allSkies = append([]sky{{"at once", deaths[0], false}, {"at once", deaths[1], false}, {"late", deaths[1], false}}, worst...)
)

// eachDeath runs a story once for every call that it makes and every way to die there. The story is told the way to EC2 of the
// process that dies; it returns when that process has ended. The skies are all when none is named.
func eachDeath(t *testing.T, story func(t *testing.T, w *world, mortal func(*world, workereni.Config) (*workereni.Flow, context.Context)), skies ...sky) {
	if len(skies) == 0 {
		skies = allSkies
	}
	for _, sky := range skies {
		t.Run(fmt.Sprintf("%s/%s/policy by tags %t", sky.lag, sky.death, sky.byTags), func(t *testing.T) {
			n := 1
			for survived := false; !survived; n++ {
				died := false
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, twoZones+lags[sky.lag])
					if sky.byTags {
						w.through = policyByTags
					}
					ctx, cancel := context.WithTimeout(t.Context(), 300*time.Second)
					defer cancel()
					story(t, w, func(w *world, cfg workereni.Config) (*workereni.Flow, context.Context) {
						return w.flow(cfg, dying(cancel, n, sky.death, &died)), ctx
					})
				})
				if t.Failed() {
					t.Fatalf("killed at call %d", n)
				}
				survived = !died
			}
			t.Logf("killed at each of %d calls", n-2)
			if n < 7 {
				t.Errorf("the story has %d calls only", n-2)
			}
		})
	}
}

func (w *world) twoENIs() workereni.Config {
	return w.config(
		w.on("n4-a", func(i *workereni.Interface) {
			i.Addressing, i.Stock, i.Groups = workereni.Start, 4, []eni.GroupID{w.group}
		}),
		w.on("n6-a", func(i *workereni.Interface) { i.SourceDestCheck, i.DeleteOnTermination = false, false }),
	)
}

func TestKilledAtAnyCallALaunchGoesOn(t *testing.T) {
	fixed := func(addrs ...string) func(*workereni.Interface) {
		return func(i *workereni.Interface) {
			i.Addressing = workereni.Fixed
			for _, a := range addrs {
				i.Addresses = append(i.Addresses, netip.MustParseAddr(a))
			}
		}
	}
	for name, tt := range map[string]struct {
		kind string
		cfg  func(w *world) workereni.Config
		want []string
		all  bool
	}{
		"from the start, a stock, and one that stays": {
			"m5.2xlarge", (*world).twoENIs, []string{"0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked"}, true,
		},
		"as many as the type allows": {
			"m5.large", (*world).twoENIs, []string{"0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked"}, false,
		},
		"chosen by EC2 with a stock, and fixed": {
			"m5.2xlarge", func(w *world) workereni.Config {
				return w.config(w.on("n4-a", func(i *workereni.Interface) { i.Stock = 3 }), w.on("n6-a", fixed("10.10.2.50", "10.10.2.51")))
			}, []string{"0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 dies"}, false,
		},
		"IPv6 only": {
			"m5.2xlarge", func(w *world) workereni.Config { return w.config(w.on("v6-a"), w.on("n6-a", keeps)) },
			[]string{"0:1 v6-a at 0:1 dies", "0:2 n6-a at 0:2"},
			false,
		},
		"several cards": {
			"hpc7a.96xlarge", func(w *world) workereni.Config {
				return w.config(w.on("n6-a", everyCard), w.on("n4-a", at(1, 2), keeps))
			}, []string{"0:1 n6-a at 0:1 dies", "1:1 n6-a at 1:1 dies", "1:2 n4-a at 1:2"}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			skies := worst
			if tt.all {
				skies = allSkies
			}
			eachDeath(t, func(t *testing.T, w *world, mortal func(*world, workereni.Config) (*workereni.Flow, context.Context)) {
				cfg, id := tt.cfg(w), w.instance(tt.kind, "nodes-a")
				f, ctx := mortal(w, cfg)
				if _, err := f.Launch(ctx, workereni.Request{Instance: id}); err != nil && !errors.Is(err, workereni.ErrUnfinished) {
					t.Fatal(err)
				}
				w.mustLaunch(w.flow(cfg), id)
				w.wantENIs(tt.want...)
			}, skies...)
		})
	}
}

func TestKilledAtAnyCallATerminationGoesOn(t *testing.T) {
	eachDeath(t, func(t *testing.T, w *world, mortal func(*world, workereni.Config) (*workereni.Flow, context.Context)) {
		cfg := w.config(w.on("n4-a"), w.on("n6-a", keeps), w.on("tiny-a", keeps))
		id := w.instance("m5.2xlarge", "nodes-a")
		w.mustLaunch(w.flow(cfg), id)
		f, ctx := mortal(w, cfg)
		if err := f.Terminate(ctx, id); err != nil && !errors.Is(err, workereni.ErrUnfinished) {
			t.Fatal(err)
		}
		if err := w.flow(cfg).Terminate(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
			t.Fatal(err)
		}
		w.wantENIs()
	})
}

func keeps(i *workereni.Interface) { i.DeleteOnTermination = false }

// TestKilledWhileUndoing dies at any call of a launch that EC2 refuses in the end: the next one undoes what is left.
func TestKilledWhileUndoing(t *testing.T) {
	eachDeath(t, func(t *testing.T, w *world, mortal func(*world, workereni.Config) (*workereni.Flow, context.Context)) {
		if err := w.lab.Front.SetFaults([]front.Fault{{Action: "AttachNetworkInterface", Nth: 2, Count: 1000, Kind: front.ErrorBefore, Code: "OperationNotPermitted"}}); err != nil {
			t.Fatal(err)
		}
		cfg, id := w.twoENIs(), w.instance("m5.2xlarge", "nodes-a")
		f, ctx := mortal(w, cfg)
		if _, err := f.Launch(ctx, workereni.Request{Instance: id}); err == nil {
			t.Fatal("launched")
		}
		if _, err := w.launch(w.flow(cfg), id); !errors.Is(err, workereni.ErrImpossible) {
			t.Fatalf("got %v", err)
		}
		// ABANDON is what follows.
		if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
			t.Fatal(err)
		}
		if err := w.flow(cfg).Terminate(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.wantENIs()
	})
}

func TestLaunchedTwiceAtTheSameTime(t *testing.T) {
	for lag, ec2 := range lags {
		for _, apart := range []time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second} {
			t.Run(fmt.Sprintf("%s/%s apart", lag, apart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, twoZones+ec2)
					cfg, id := w.twoENIs(), w.instance("m5.2xlarge", "nodes-a")
					var runs sync.WaitGroup
					for n := range 3 {
						runs.Go(func() {
							time.Sleep(time.Duration(n) * apart)
							if _, err := w.launch(w.flow(cfg), id); err != nil {
								t.Errorf("run %d: %v", n, err)
							}
						})
					}
					runs.Wait()
					w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
					if n := w.calls("CreateNetworkInterface", "ok"); n > 6 {
						t.Errorf("%d calls created ENIs", n)
					}
				})
			})
		}
	}
}

// TestALaunchThatComesLate: the events of an instance may arrive in any order.
func TestALaunchThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones+lags["late"])
		cfg, id := w.twoENIs(), w.instance("m5.2xlarge", "nodes-a")
		if err := w.flow(cfg).Terminate(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.mustLaunch(w.flow(cfg), id)
		if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
			t.Fatal(err)
		}
		<-time.After(5 * time.Second) // until then EC2 shows the ENIs in place
		if _, err := w.launch(w.flow(cfg), id); !errors.Is(err, workereni.ErrGone) {
			t.Errorf("launch of a terminated instance: %v", err)
		}
		w.wantENIs()
	})
}

// TestThePassingPasses: faults that a second try cures.
func TestThePassingPasses(t *testing.T) {
	for _, action := range []string{
		"CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute", "DescribeNetworkInterfaces", "DescribeInstances",
		"DescribeSubnets", "DescribeInstanceTypes", "DescribeSecurityGroups", "GetSubnetCidrReservations",
	} {
		for _, fault := range []front.Fault{
			{Kind: front.LostReply},
			{Kind: front.ErrorBefore, Code: "RequestLimitExceeded"},
			{Kind: front.ErrorAfter},
			{Kind: front.ServerError},
			{Kind: front.Slow, Delay: 20 * time.Second},
		} {
			t.Run(fmt.Sprintf("%s/%s %s", action, fault.Kind, fault.Code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, twoZones+lags["late"])
					fault.Action, fault.Nth, fault.Count = action, 1, 3
					if err := w.lab.Front.SetFaults([]front.Fault{fault}); err != nil {
						t.Fatal(err)
					}
					w.mustLaunch(w.flow(w.twoENIs()), w.instance("m5.2xlarge", "nodes-a"))
					w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
				})
			})
		}
	}
}
