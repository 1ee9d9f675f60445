// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// TestAHealthyWorkerIsLeftAlone: an event that comes again after the configuration was changed to something impossible.
func TestAHealthyWorkerIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		cfg, id := w.twoENIs(), w.instance("m5.2xlarge", "nodes-a")
		w.mustLaunch(w.flow(cfg), id)
		if _, err := w.launch(w.flow(w.config(w.on("n4-a"), w.on("tiny-a", at(9, 1)))), id); !errors.Is(err, workereni.ErrImpossible) {
			t.Errorf("got %v", err)
		}
		w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
	})
}

// TestALaunchAfterAnUndoneOne: the client tokens of the first are used up, by ENIs that were deleted.
func TestALaunchAfterAnUndoneOne(t *testing.T) {
	for lag, ec2 := range lags {
		t.Run(lag, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, twoZones+ec2)
				cfg, id := w.twoENIs(), w.instance("m5.2xlarge", "nodes-a")
				if err := w.lab.Front.SetFaults([]front.Fault{{Action: "AttachNetworkInterface", Nth: 1, Count: 1000, Kind: front.ErrorBefore, Code: "UnauthorizedOperation"}}); err != nil {
					t.Fatal(err)
				}
				if _, err := w.launch(w.flow(cfg), id); !errors.Is(err, workereni.ErrImpossible) {
					t.Fatalf("got %v", err)
				}
				w.wantENIs()
				if err := w.lab.Front.SetFaults(nil); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				w.mustLaunch(w.flow(cfg), id)
				w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
				if took := time.Since(began); took > 75*time.Second { // not 30 s for each of them
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

// lateRefusal refuses the first creation in a subnet for good, after a while: the quota was used up at that moment.
type lateRefusal struct {
	workereni.EC2
	subnet eni.SubnetID
	after  time.Duration
	given  bool
}

func (l *lateRefusal) Create(ctx context.Context, n eni.NewDevice) (eni.Device, error) {
	if n.Subnet == l.subnet && !l.given {
		l.given = true
		time.Sleep(l.after)
		return eni.Device{}, fmt.Errorf("create: %w", eni.ErrRefused)
	}
	return l.EC2.Create(ctx, n)
}

// TestWhatAnotherRunVouchesForStays: of two runs at once one is refused for good, before or after it has made an ENI; the other one is not
// and was the first to say so.
func TestWhatAnotherRunVouchesForStays(t *testing.T) {
	for _, subnet := range []string{"n4-a", "n6-a"} {
		t.Run("refused in "+subnet, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, twoZones+"ec2: {latency: 80ms}\n")
				cfg, id := w.twoENIs(), w.instance("m5.2xlarge", "nodes-a")
				refused := &lateRefusal{EC2: w.client(), subnet: eni.SubnetID(w.lab.Subnets[subnet]), after: 5 * time.Second}
				var runs sync.WaitGroup
				var inPlace, answered time.Time
				runs.Go(func() {
					if _, err := w.launch(workereni.New(cfg, refused, w.log), id); err != nil {
						t.Error(err)
					}
					answered = time.Now()
				})
				runs.Go(func() {
					time.Sleep(300 * time.Millisecond)
					if _, err := w.launch(w.flow(cfg), id); err != nil {
						t.Error(err)
					}
					inPlace = time.Now()
				})
				runs.Wait()
				if !refused.given || !inPlace.Before(answered) {
					t.Error("the other run was not there before")
				}
				w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
			})
		})
	}
}

// TestTwoENIsForOneSlot: what runs that knew nothing of one another could leave comes down to one.
func TestTwoENIsForOneSlot(t *testing.T) {
	for name, attached := range map[string]int{"none is attached": -1, "the first is attached": 0, "the second is attached": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, twoZones)
				id := w.instance("m5.2xlarge", "nodes-a")
				for n := range 2 {
					e, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{SubnetID: w.lab.Subnets["n4-a"], Tags: map[string]string{
						workereni.TagOwner: "group-1", workereni.TagInstance: string(id), workereni.TagSlot: "0:1", eni.TagNoManage: "true",
					}})
					if err != nil {
						t.Fatal(err)
					}
					if n != attached {
						continue
					}
					if _, err := w.lab.Cloud.AttachNetworkInterface(time.Now(), vpc.AttachNetworkInterfaceInput{NetworkInterfaceID: e.ID, InstanceID: string(id), DeviceIndex: 1}); err != nil {
						t.Fatal(err)
					}
				}
				w.mustLaunch(w.flow(w.config(w.on("n4-a"))), id)
				w.wantENIs("0:1 n4-a at 0:1 dies")
			})
		})
	}
}

// TestAnInstanceThatEC2DoesNotKnowYet: the event is faster than EC2's other answers.
func TestAnInstanceThatEC2DoesNotKnowYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones+lags["late"])
		out, err := w.lab.Cloud.RunInstances(time.Now(), vpc.RunInstancesInput{
			ImageID: "ami-0123456789abcdef0", InstanceType: "m5.2xlarge", MinCount: 1, MaxCount: 1, SubnetID: w.lab.Subnets["nodes-a"],
		})
		if err != nil {
			t.Fatal(err)
		}
		w.mustLaunch(w.flow(w.config(w.on("n4-a"))), eni.InstanceID(out.Instances[0].ID))
		w.wantENIs("0:1 n4-a at 0:1 dies")
	})
}

// TestAnInstanceThatIsPending: the event may come before the instance runs, and nothing can be attached to it until then.
func TestAnInstanceThatIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones+"ec2: {latency: 80ms, boot: 90s, propagation: {describe: 1s, imds: 1s}}\n")
		id := w.instance("m5.2xlarge", "nodes-a") // launched a minute ago
		w.mustLaunch(w.flow(w.twoENIs()), id)
		w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
		if n := w.calls("AttachNetworkInterface", "IncorrectState"); n > 0 {
			t.Errorf("%d attempts to attach to what is shown as pending", n)
		}
		if n := w.calls("DescribeInstances", ""); n > 20 {
			t.Errorf("%d looks at it in half a minute", n)
		}
	})
}

// TestAnInstanceThatGoesMeanwhile: what was made for it and is not attached goes too.
func TestAnInstanceThatGoesMeanwhile(t *testing.T) {
	for _, after := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 4 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, twoZones+lags["late"])
				id := w.instance("m5.2xlarge", "nodes-a")
				time.AfterFunc(after, func() {
					if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
						t.Error(err)
					}
				})
				switch _, err := w.launch(w.flow(w.twoENIs()), id); {
				case err == nil: // EC2 showed all in place a moment longer than it was; the other event follows
					if err = w.flow(w.twoENIs()).Terminate(t.Context(), id); err != nil {
						t.Error(err)
					}
				case !errors.Is(err, workereni.ErrGone) && !errors.Is(err, workereni.ErrImpossible):
					t.Errorf("got %v", err)
				}
				w.wantENIs()
			})
		})
	}
}

// TestAnInstanceThatGoesWhileCallsAreThrottled is not waited for until the time is up; nor are its ENIs created again meanwhile.
func TestAnInstanceThatGoesWhileCallsAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones+lags["late"])
		if err := w.lab.Front.SetFaults([]front.Fault{{Action: "AttachNetworkInterface", Nth: 1, Count: 1000, Kind: front.ErrorBefore, Code: "RequestLimitExceeded"}}); err != nil {
			t.Fatal(err)
		}
		cfg, id := w.twoENIs(), w.instance("m5.2xlarge", "nodes-a")
		began := time.Now()
		time.AfterFunc(2*time.Minute, func() {
			if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
				t.Error(err)
			}
		})
		if _, err := w.launch(w.flow(cfg), id); !errors.Is(err, workereni.ErrGone) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > 3*time.Minute {
			t.Errorf("it was noticed after %s", took)
		}
		if n := w.calls("CreateNetworkInterface", "ok"); n > 2 {
			t.Errorf("%d calls created two ENIs", n)
		}
		w.wantENIs()
	})
}

// TestTerminatedWhileLaunching: both events at once. What stays behind goes with the instance, or by the sweep.
func TestTerminatedWhileLaunching(t *testing.T) {
	for lag, ec2 := range lags {
		for _, later := range []time.Duration{0, 300 * time.Millisecond, time.Second, 4 * time.Second, 8 * time.Second} {
			t.Run(lag+"/"+later.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, twoZones+ec2)
					cfg, id := w.twoENIs(), w.instance("m5.2xlarge", "nodes-a")
					var events sync.WaitGroup
					events.Go(func() { _, _ = w.launch(w.flow(cfg), id) }) // it may end either way
					for range 2 {
						events.Go(func() {
							time.Sleep(later)
							if err := w.flow(cfg).Terminate(t.Context(), id); err != nil {
								t.Error(err)
							}
						})
					}
					events.Wait()
					if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
						t.Fatal(err)
					}
					<-time.After(2 * time.Hour)
					if _, err := w.flow(cfg).Sweep(t.Context(), time.Hour); err != nil {
						t.Fatal(err)
					}
					w.wantENIs()
				})
			})
		}
	}
}

func TestAnInstanceThatEC2NeverKnows(t *testing.T) {
	const memory, pause = time.Minute, 23 * time.Second // the longest between two looks
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		began := time.Now()
		if _, err := w.launch(w.flow(w.twoENIs()), "i-0123456789abcdef0"); !errors.Is(err, workereni.ErrGone) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > memory+pause { // not 30 s for each of them besides
			t.Errorf("after %s", took)
		}
	})
}
