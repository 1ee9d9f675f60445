// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// tagged has every subnet carry its name without the zone as the tag network.
var tagged = func() string {
	text := twoZones
	for _, name := range []string{"n4", "n6"} {
		for _, zone := range []string{"a", "b"} {
			text = strings.ReplaceAll(text, "name: "+name+"-"+zone+",", "name: "+name+"-"+zone+", tags: {network: "+name+"},")
		}
	}
	return strings.Replace(text, "- name: n4-a\n", "- name: n4-a\n  tags: {network: n4}\n", 1)
}()

// byTags is what an agent has: one configuration for workers of every zone.
func (w *world) byTags(networks ...string) workereni.Config {
	var all []workereni.Interface
	for _, n := range networks {
		all = append(all, workereni.Interface{
			SubnetTags: map[string]string{"network": n}, Last: true, Addressing: workereni.DHCP, SourceDestCheck: true, DeleteOnTermination: true,
		})
	}
	return w.config(all...)
}

// keep runs a keeper until the worker has its ENIs, or ctx ends.
func keep(ctx context.Context, f *workereni.Flow, id eni.InstanceID) *workereni.Keeper {
	k := workereni.NewKeeper(f, id)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.Run(ctx)
	}()
	select {
	case <-k.Placed():
	case <-ended:
	}
	cancel()
	<-ended
	return k
}

// attach gives a worker an ENI as the Amazon VPC CNI does: at the lowest free index.
func (w *world) attach(id eni.InstanceID, index int) {
	w.t.Helper()
	e, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{SubnetID: w.lab.Subnets["nodes-a"]})
	if err != nil {
		w.t.Fatal(err)
	}
	time.Sleep(10 * time.Second) // until EC2 knows it everywhere
	if _, err = w.lab.Cloud.AttachNetworkInterface(time.Now(), vpc.AttachNetworkInterfaceInput{NetworkInterfaceID: e.ID, InstanceID: string(id), DeviceIndex: index}); err != nil {
		w.t.Fatal(err)
	}
}

// TestAKeeperWorksBesideTheVPCCNI: which has taken the lowest index before the agent came.
func TestAKeeperWorksBesideTheVPCCNI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, tagged)
		id := w.instance("m5.2xlarge", "nodes-a")
		w.attach(id, 1)
		k := keep(t.Context(), w.flow(w.byTags("n4", "n6")), id)
		if p := k.Problem(); p != "" {
			t.Errorf("problem %q", p)
		}
		w.wantENIs("0:2 n6-a at 0:2 dies", "0:3 n4-a at 0:3 dies")

		other := w.instance("m5.2xlarge", "nodes-b") // the same configuration in another zone; it has no n6
		k = keep(t.Context(), w.flow(w.byTags("n4")), other)
		if p := k.Problem(); p != "" {
			t.Errorf("problem %q", p)
		}
		w.wantENIs("0:2 n6-a at 0:2 dies", "0:3 n4-a at 0:3 dies", "0:3 n4-b at 0:3 dies")

		reads := w.calls("CreateNetworkInterface", "")
		keep(t.Context(), w.flow(w.byTags("n4", "n6")), id) // a restart
		if n := w.calls("CreateNetworkInterface", ""); n != reads {
			t.Errorf("a restart created %d", n-reads)
		}
	})
}

// TestKilledAtAnyCallAKeeperGoesOn: as kubelet starts an agent again.
func TestKilledAtAnyCallAKeeperGoesOn(t *testing.T) {
	eachDeath(t, func(t *testing.T, w *world, mortal func(*world, workereni.Config) (*workereni.Flow, context.Context)) {
		for _, name := range []string{"n4-a", "n6-a"} {
			if err := w.lab.Cloud.CreateTags(time.Now(), []string{w.lab.Subnets[name]}, map[string]string{"network": name[:2]}); err != nil {
				t.Fatal(err)
			}
		}
		id := w.instance("m5.2xlarge", "nodes-a")
		w.attach(id, 1)
		time.Sleep(time.Minute)
		cfg := w.byTags("n4", "n6")
		f, ctx := mortal(w, cfg)
		keep(ctx, f, id)
		keep(t.Context(), w.flow(cfg), id)
		w.wantENIs("0:2 n6-a at 0:2 dies", "0:3 n4-a at 0:3 dies")
	})
}

// TestAKeeperHopes: what cannot be is told, nothing of it is left, and it is tried again.
func TestAKeeperHopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, tagged)
		id := w.instance("m5.2xlarge", "nodes-a")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		k := workereni.NewKeeper(w.flow(w.byTags("n4", "n9")), id)
		if p := k.Problem(); p != "not all in place yet" {
			t.Errorf("at first: %q", p)
		}
		go k.Run(ctx)
		time.Sleep(time.Hour)
		if p := k.Problem(); !strings.Contains(p, "has the tags [network:n9]") {
			t.Errorf("problem %q", p)
		}
		w.wantENIs()
		if n := w.calls("DescribeInstances", ""); n > 20 {
			t.Errorf("%d attempts in an hour", n)
		}
		if err := w.lab.Cloud.CreateTags(time.Now(), []string{w.lab.Subnets["n6-a"]}, map[string]string{"network": "n9"}); err != nil {
			t.Fatal(err)
		}
		<-k.Placed()
		if p := k.Problem(); p != "" {
			t.Errorf("afterwards: %q", p)
		}
		w.wantENIs("0:2 n6-a at 0:2 dies", "0:3 n4-a at 0:3 dies")
		cancel()
		synctest.Wait()
	})
}

// TestAKeeperLeavesOthersAlone: the slots that are asked for are somebody else's.
func TestAKeeperLeavesOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, tagged)
		id := w.instance("m4.large", "nodes-a") // two ENIs
		w.attach(id, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		k := keep(ctx, w.flow(w.byTags("n4")), id)
		if p := k.Problem(); !strings.Contains(p, "m4.large allows 2 ENIs") {
			t.Errorf("problem %q", p)
		}
		if n := w.calls("CreateNetworkInterface", "") + w.calls("DetachNetworkInterface", ""); n != 0 {
			t.Errorf("%d calls that change something", n)
		}
	})
}

// TestAKeeperGivesWay: somebody else takes the index between the plan and the attachment.
func TestAKeeperGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, tagged)
		id := w.instance("m5.2xlarge", "nodes-a")
		e, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{SubnetID: w.lab.Subnets["nodes-a"]})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		taken := false
		rival := func(next http.RoundTripper) http.RoundTripper {
			return transport(func(r *http.Request) (*http.Response, error) {
				if action(t, r) == "AttachNetworkInterface" && !taken {
					taken = true
					if _, err := w.lab.Cloud.AttachNetworkInterface(time.Now(), vpc.AttachNetworkInterfaceInput{
						NetworkInterfaceID: e.ID, InstanceID: string(id), DeviceIndex: 3,
					}); err != nil {
						t.Error(err)
					}
				}
				return next.RoundTrip(r)
			})
		}
		began := time.Now()
		k := keep(t.Context(), w.flow(w.byTags("n4", "n6"), rival), id)
		if p := k.Problem(); p != "" || !taken {
			t.Errorf("problem %q, the index was taken %t", p, taken)
		}
		w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 dies")
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// action reads which one a request asks for.
func action(t *testing.T, r *http.Request) string {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, err := url.ParseQuery(string(body))
	if err != nil {
		t.Error(err)
	}
	return form.Get("Action")
}

// dyingAt ends ctx when the action is called, which does not get through.
func dyingAt(t *testing.T, cancel context.CancelFunc, at string) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			if action(t, r) == at {
				cancel()
				return nil, errors.New("the process has ended")
			}
			return next.RoundTrip(r)
		})
	}
}

// TestKeepersSweep: what a worker that is gone left behind, another one deletes within a day.
func TestKeepersSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, tagged)
		cfg := w.byTags("n4")
		ends, stays := w.instance("m5.2xlarge", "nodes-a"), w.instance("m5.2xlarge", "nodes-a")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		mortal, end := context.WithCancel(ctx)
		keep(mortal, w.flow(cfg, dyingAt(t, end, "AttachNetworkInterface")), ends)
		if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(ends)}); err != nil {
			t.Fatal(err)
		}
		w.wantENIs("0:3 n4-a unattached")

		go workereni.NewKeeper(w.flow(cfg), stays).Run(ctx)
		time.Sleep(25 * time.Hour)
		w.wantENIs("0:3 n4-a at 0:3 dies")
		cancel()
		synctest.Wait()
	})
}

// TestAKeeperHopesForAPermission: that is told only after ENIs were made. Their tokens are used up, each time another one.
func TestAKeeperHopesForAPermission(t *testing.T) {
	for name, restarts := range map[string]bool{"one agent": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tagged)
				if err := w.lab.Front.SetFaults([]front.Fault{{Action: "AttachNetworkInterface", Probability: 1, Kind: front.ErrorBefore, Code: "UnauthorizedOperation"}}); err != nil {
					t.Fatal(err)
				}
				id := w.instance("m5.2xlarge", "nodes-a")
				cfg := w.byTags("n4", "n6")
				ctx, cancel := context.WithCancel(t.Context())
				k := workereni.NewKeeper(w.flow(cfg), id)
				go k.Run(ctx)
				time.Sleep(2 * time.Hour)
				if p := k.Problem(); !strings.Contains(p, "UnauthorizedOperation") {
					t.Errorf("problem %q", p)
				}
				made := w.calls("CreateNetworkInterface", "ok")
				if made < 10 {
					t.Errorf("%d ENIs made in vain", made)
				}
				if err := w.lab.Front.SetFaults(nil); err != nil {
					t.Fatal(err)
				}
				if restarts {
					cancel()
					synctest.Wait()
					ctx, cancel = context.WithCancel(t.Context())
					k = workereni.NewKeeper(w.flow(cfg), id)
					go k.Run(ctx)
				}
				began := time.Now()
				select {
				case <-k.Placed():
				case <-time.After(30 * time.Minute): // a pause after what cannot be, and a look for each token
					t.Errorf("still %q half an hour after the permission was given", k.Problem())
				}
				t.Logf("in place %v after the permission was given; %d ENIs had been made in vain", time.Since(began), made)
				w.wantENIs("0:2 n6-a at 0:2 dies", "0:3 n4-a at 0:3 dies")
				cancel()
				synctest.Wait()
			})
		})
	}
}

// TestAKeeperTakesNothingFromUnderPods: one ENI is in place and serves, while the other one is refused for longer than a doubt lasts.
func TestAKeeperTakesNothingFromUnderPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, tagged)
		w.refuse("AttachNetworkInterface", 2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		k := workereni.NewKeeper(w.flow(w.byTags("n4", "n6")), w.instance("m5.2xlarge", "nodes-a"))
		go k.Run(ctx)
		time.Sleep(time.Hour)
		if n := w.calls("DetachNetworkInterface", ""); n > 0 || k.Problem() == "" {
			t.Errorf("%d were detached, problem %q", n, k.Problem())
		}
		w.wantENIs("0:3 n4-a at 0:3 dies")
		if err := w.lab.Front.SetFaults(nil); err != nil {
			t.Fatal(err)
		}
		<-k.Placed()
		w.wantENIs("0:2 n6-a at 0:2 dies", "0:3 n4-a at 0:3 dies")
		cancel()
		synctest.Wait()
	})
}
