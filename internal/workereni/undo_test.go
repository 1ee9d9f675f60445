// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// ignorant does not know an ENI where it is to be deleted, for a while after its launch; Describe shows it.
type ignorant struct {
	workereni.EC2
	until time.Time
}

func (i *ignorant) Delete(ctx context.Context, id eni.ID) error {
	if time.Now().Before(i.until) {
		return fmt.Errorf("delete %s: %w", id, eni.ErrNotFound)
	}
	return i.EC2.Delete(ctx, id)
}

// refuse makes every call of the action from the n-th on one that EC2 refuses for good.
func (w *world) refuse(action string, n int, before ...front.Fault) {
	w.t.Helper()
	faults := append(before, front.Fault{Action: action, Nth: n, Count: 1000, Kind: front.ErrorBefore, Code: "OperationNotPermitted"})
	if err := w.lab.Front.SetFaults(faults); err != nil {
		w.t.Fatal(err)
	}
}

// TestWhatIsShownIsThere, although the server that is to delete it says that it knows nothing of it.
func TestWhatIsShownIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		w.refuse("CreateNetworkInterface", 2)
		ec2 := &ignorant{w.client(), time.Now().Add(5 * time.Second)}
		if _, err := w.launch(workereni.New(w.twoENIs(), ec2, w.log), w.instance("m5.2xlarge", "nodes-a")); !errors.Is(err, workereni.ErrImpossible) {
			t.Errorf("got %v", err)
		}
		w.wantENIs()
	})
}

// TestWhatIsShownTooLongIsGone: then the Describe calls are behind.
func TestWhatIsShownTooLongIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		cfg, id := w.config(w.on("n4-a", keeps), w.on("n6-a", keeps)), w.instance("m5.2xlarge", "nodes-a")
		w.mustLaunch(w.flow(cfg), id)
		ec2 := &stale{EC2: w.client(), devices: time.Hour, seen: map[string]seen{}}
		if _, err := ec2.DevicesTagged(t.Context(), map[string]string{workereni.TagOwner: "group-1", workereni.TagInstance: string(id)}); err != nil {
			t.Fatal(err)
		}
		if err := w.flow(cfg).Terminate(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := workereni.New(cfg, ec2, w.log).Terminate(t.Context(), id); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 30*time.Second || took > time.Minute {
			t.Errorf("it took %s", took)
		}
		w.wantENIs()
	})
}

// TestWhatALostReplyMadeIsUndone: EC2 shows it late, and a repetition is refused, for the quota was used up by it.
func TestWhatALostReplyMadeIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones+"ec2: {latency: 80ms, propagation: {describe: 15s}}\n")
		w.refuse("CreateNetworkInterface", 2, front.Fault{Action: "CreateNetworkInterface", Nth: 1, Count: 1, Kind: front.LostReply})
		if _, err := w.launch(w.flow(w.twoENIs()), w.instance("m5.2xlarge", "nodes-a")); !errors.Is(err, workereni.ErrImpossible) {
			t.Errorf("got %v", err)
		}
		w.wantENIs()
	})
}

// TestAWorkerIsGivenUpFirst, and what is attached to one that is not stays.
func TestAWorkerIsGivenUpFirst(t *testing.T) {
	for _, tt := range []struct {
		givenUp bool
		left    []string
	}{{true, nil}, {false, []string{"0:1 n4-a at 0:1 dies"}}} {
		t.Run(fmt.Sprintf("given up %t", tt.givenUp), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, twoZones)
				w.refuse("AttachNetworkInterface", 2)
				asked := 0
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Second)
				defer cancel()
				_, err := w.flow(w.twoENIs()).Launch(ctx, workereni.Request{Instance: w.instance("m5.2xlarge", "nodes-a"), GiveUp: func(e *workereni.ImpossibleError) bool {
					asked++
					w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a unattached")
					if len(e.Reasons) == 0 {
						t.Error("for no reason")
					}
					return tt.givenUp
				}})
				if !errors.Is(err, workereni.ErrImpossible) || asked != 1 {
					t.Errorf("asked %d times: %v", asked, err)
				}
				w.wantENIs(tt.left...)
			})
		})
	}
}
