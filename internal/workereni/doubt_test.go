// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// stale is an EC2 of which some answers are older than others: each comes from another of its servers.
type stale struct {
	workereni.EC2
	devices, workers time.Duration // how old an answer may be

	mu   sync.Mutex
	seen map[string]seen
}

type seen struct {
	at     time.Time
	answer any
}

// old is an earlier answer to the same question, or else today's.
func old[T any](s *stale, question string, age time.Duration, ask func() (T, error)) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, ok := s.seen[question]; ok && time.Since(was.at) < age {
		return was.answer.(T), nil
	}
	now, err := ask()
	if err == nil {
		s.seen[question] = seen{time.Now(), now}
	}
	return now, err
}

func (s *stale) DevicesTagged(ctx context.Context, tags map[string]string) ([]eni.Device, error) {
	return old(s, "devices "+fmt.Sprint(tags), s.devices, func() ([]eni.Device, error) { return s.EC2.DevicesTagged(ctx, tags) })
}

func (s *stale) Workers(ctx context.Context, ids []eni.InstanceID) ([]eni.Worker, error) {
	return old(s, "workers "+fmt.Sprint(ids), s.workers, func() ([]eni.Worker, error) { return s.EC2.Workers(ctx, ids) })
}

// TestAFullWorkerIsNotTakenForTooFull: two runs for a worker that gets as many ENIs as its type allows, where the Describe calls of
// EC2 disagree about what is attached.
func TestAFullWorkerIsNotTakenForTooFull(t *testing.T) {
	for name, age := range map[string]struct{ devices, workers time.Duration }{
		"the instance is shown first": {devices: 20 * time.Second},
		"the ENIs are shown first":    {workers: 20 * time.Second},
	} {
		for _, apart := range []time.Duration{0, 500 * time.Millisecond, 2 * time.Second, 4 * time.Second} {
			t.Run(fmt.Sprintf("%s/%s apart", name, apart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, twoZones+lags["late"])
					cfg, id := w.twoENIs(), w.instance("m5.large", "nodes-a")
					var runs sync.WaitGroup
					for n := range 2 {
						f := workereni.New(cfg, &stale{EC2: w.client(), devices: age.devices, workers: age.workers, seen: map[string]seen{}}, w.log)
						runs.Go(func() {
							time.Sleep(time.Duration(n) * apart)
							// The second one sees what was before the first began.
							if _, err := f.Launch(t.Context(), workereni.Request{Instance: id}); err != nil {
								t.Errorf("run %d: %v", n, err)
							}
						})
					}
					runs.Wait()
					w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
				})
			})
		}
	}
}

// TestOneNoIsNotBelieved: it may be one server's, which knows neither a new role yet nor a new security group.
func TestOneNoIsNotBelieved(t *testing.T) {
	for action, tt := range map[string]struct {
		calls int // of a launch
		codes []string
	}{
		"DescribeInstances":         {1, []string{"AuthFailure", "UnauthorizedOperation"}},
		"DescribeNetworkInterfaces": {3, []string{"AuthFailure", "UnauthorizedOperation"}}, // the last when all is attached
		"CreateNetworkInterface":    {2, []string{"AuthFailure", "UnauthorizedOperation", "InvalidGroup.NotFound", "InvalidSubnetID.NotFound"}},
	} {
		for _, code := range tt.codes {
			for n := range tt.calls {
				t.Run(fmt.Sprintf("%s/%s at call %d", action, code, n+1), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, twoZones+lags["late"])
						if err := w.lab.Front.SetFaults([]front.Fault{{Action: action, Nth: n + 1, Count: 1, Kind: front.ErrorBefore, Code: code}}); err != nil {
							t.Fatal(err)
						}
						w.mustLaunch(w.flow(w.twoENIs()), w.instance("m5.2xlarge", "nodes-a"))
						w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
						if got := w.calls(action, code); got != 1 {
							t.Errorf("%d answers were %s", got, code)
						}
					})
				})
			}
		}
	}
}

// TestANoThatLastsIsBelieved, and what was made before is undone.
func TestANoThatLastsIsBelieved(t *testing.T) {
	for _, code := range []string{"UnauthorizedOperation", "InvalidGroup.NotFound"} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, twoZones+lags["late"])
				if err := w.lab.Front.SetFaults([]front.Fault{{Action: "CreateNetworkInterface", Nth: 2, Count: 1000, Kind: front.ErrorBefore, Code: code}}); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				_, err := w.launch(w.flow(w.twoENIs()), w.instance("m5.2xlarge", "nodes-a"))
				impossible, ok := errors.AsType[*workereni.ImpossibleError](err)
				if !ok || !strings.Contains(impossible.Reasons[0], code) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took < 30*time.Second || took > 90*time.Second {
					t.Errorf("it took %s", took)
				}
				w.wantENIs()
			})
		})
	}
}

// TestOneNoEndsNoTermination: it may be the one to the look for what is to go.
func TestOneNoEndsNoTermination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		cfg, id := w.config(w.on("n4-a", keeps)), w.instance("m5.2xlarge", "nodes-a")
		w.mustLaunch(w.flow(cfg), id)
		if err := w.lab.Front.SetFaults([]front.Fault{{Action: "DescribeNetworkInterfaces", Nth: 1, Count: 1, Kind: front.ErrorBefore, Code: "AuthFailure"}}); err != nil {
			t.Fatal(err)
		}
		if err := w.flow(cfg).Terminate(t.Context(), id); err != nil {
			t.Error(err)
		}
		w.wantENIs()
	})
}

// TestWhatIsNotShownMayBeGone, with the worker: neither what a run remembers nor an old look at the worker keeps it waiting for ever.
func TestWhatIsNotShownMayBeGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		id := w.instance("m5.2xlarge", "nodes-a")
		// After the attachment, so that the worker is read again and shown with its ENI.
		if err := w.lab.Front.SetFaults([]front.Fault{{Action: "ModifyNetworkInterfaceAttribute", Nth: 1, Count: 1, Kind: front.ServerError}}); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(15*time.Second, func() {
			if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
				t.Error(err)
			}
		})
		ec2 := &stale{EC2: w.client(), devices: 20 * time.Second, seen: map[string]seen{}}
		if _, err := w.launch(workereni.New(w.config(w.on("n4-a")), ec2, w.log), id); !errors.Is(err, workereni.ErrGone) {
			t.Errorf("got %v", err)
		}
		w.wantENIs()
	})
}

// forgetful answers a creation whose token is known as it did the first time, also when what was made then is gone.
type forgetful struct {
	workereni.EC2
	made map[string]eni.Device
}

func (f *forgetful) Create(ctx context.Context, n eni.NewDevice) (eni.Device, error) {
	if d, ok := f.made[n.Token]; ok {
		return d, nil
	}
	d, err := f.EC2.Create(ctx, n)
	if err == nil {
		f.made[n.Token] = d
	}
	return d, err
}

// TestATokenThatAnswersWithTheDead: EC2 need not refuse a token whose ENI was deleted.
func TestATokenThatAnswersWithTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones+lags["late"])
		ec2 := &forgetful{w.client(), map[string]eni.Device{}}
		cfg, id := w.config(w.on("n4-a"), w.on("n6-a")), w.instance("m5.2xlarge", "nodes-a")
		f := workereni.New(cfg, ec2, w.log)
		w.mustLaunch(f, id)
		for _, d := range ec2.made {
			e, _ := w.lab.Cloud.View(time.Now()).ENI(string(d.ID))
			if err := w.client().Detach(t.Context(), eni.AttachmentID(e.Attachment.ID)); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(5 * time.Second) // until then EC2 shows them attached
		if err := f.Terminate(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.wantENIs()
		began := time.Now()
		w.mustLaunch(f, id)
		w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 dies")
		if took := time.Since(began); took > 115*time.Second { // not a minute for each
			t.Errorf("took %s", took)
		}
	})
}

// undeletable refuses to delete one ENI.
type undeletable struct {
	workereni.EC2
	id eni.ID
}

func (u undeletable) Delete(ctx context.Context, id eni.ID) error {
	if id == u.id {
		return fmt.Errorf("delete %s: %w", id, eni.ErrUnauthorized)
	}
	return u.EC2.Delete(ctx, id)
}

// TestOneThatCannotGoKeepsNoOther: the rest of a worker's ENIs are taken away although EC2 refuses one of them.
func TestOneThatCannotGoKeepsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones+lags["late"])
		cfg, id := w.config(w.on("n4-a", keeps), w.on("n6-a", keeps), w.on("tiny-a", keeps)), w.instance("m5.2xlarge", "nodes-a")
		got := w.mustLaunch(w.flow(cfg), id)
		if err := w.lab.Front.SetFaults([]front.Fault{{Action: "DeleteNetworkInterface", Nth: 1, Count: 4, Kind: front.ErrorBefore, Code: "InvalidNetworkInterface.InUse"}}); err != nil {
			t.Fatal(err) // they are still being detached
		}
		err := workereni.New(cfg, undeletable{w.client(), got[1].ID}, w.log).Terminate(t.Context(), id)
		if !errors.Is(err, eni.ErrUnauthorized) || errors.Is(err, workereni.ErrUnfinished) || !strings.Contains(err.Error(), string(got[1].ID)) {
			t.Errorf("got %v", err)
		}
		w.wantENIs("0:2 n6-a unattached")
	})
}

// TestASurplusENIThatCannotGoIsPassedOver: the worker has what it is to have.
func TestASurplusENIThatCannotGoIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		id := w.instance("m5.2xlarge", "nodes-a")
		var last string
		for range 2 {
			e, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{SubnetID: w.lab.Subnets["n4-a"], Tags: map[string]string{
				workereni.TagOwner: "group-1", workereni.TagInstance: string(id), workereni.TagSlot: "0:1", eni.TagNoManage: "true",
			}})
			if err != nil {
				t.Fatal(err)
			}
			last = max(last, e.ID)
		}
		w.mustLaunch(workereni.New(w.config(w.on("n4-a")), undeletable{w.client(), eni.ID(last)}, w.log), id)
		w.wantENIs("0:1 n4-a at 0:1 dies", "0:1 n4-a unattached")
	})
}

// stuck has one ENI that is always just being used.
type stuck struct {
	workereni.EC2
	id eni.ID
}

func (s stuck) Delete(ctx context.Context, id eni.ID) error {
	if id == s.id {
		return fmt.Errorf("delete %s: %w", id, eni.ErrInUse)
	}
	return s.EC2.Delete(ctx, id)
}

// TestOneOrphanThatIsStuckKeepsNoOther: in a sweep, whichever of them EC2 lists first.
func TestOneOrphanThatIsStuckKeepsNoOther(t *testing.T) {
	for _, n := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, twoZones)
			cfg, id := w.config(w.on("n4-a", keeps), w.on("n6-a", keeps)), w.instance("m5.2xlarge", "nodes-a")
			got := w.mustLaunch(w.flow(cfg), id)
			if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
				t.Fatal(err)
			}
			<-time.After(2 * time.Hour)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if _, err := workereni.New(cfg, stuck{w.client(), got[n].ID}, w.log).Sweep(ctx, time.Hour); err != nil {
				t.Fatal(err)
			}
			if left := w.enis(); len(left) != 1 || !strings.HasPrefix(left[0], got[n].Tags[workereni.TagSlot]) {
				t.Errorf("left are %q", left)
			}
		})
	}
}

// headless is an EC2 that shows new instances without their ENIs at first.
type headless struct {
	workereni.EC2
	until time.Time
}

func (h headless) Workers(ctx context.Context, ids []eni.InstanceID) ([]eni.Worker, error) {
	workers, err := h.EC2.Workers(ctx, ids)
	for i := range workers {
		if time.Now().Before(h.until) {
			workers[i].Devices = nil
		}
	}
	return workers, err
}

// TestAWorkerIsShownWithoutENIsFirst: what is made for it says all the same when it was launched, or no sweep would ever take it.
func TestAWorkerIsShownWithoutENIsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		got := w.mustLaunch(workereni.New(w.config(w.on("n4-a")), headless{w.client(), time.Now().Add(5 * time.Second)}, w.log), w.instance("m5.2xlarge", "nodes-a"))
		if got[0].Tags[workereni.TagLaunched] == "" {
			t.Errorf("tags %v", got[0].Tags)
		}
	})
}
