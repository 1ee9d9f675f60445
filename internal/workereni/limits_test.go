// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

func at(card, index int) func(*workereni.Interface) {
	return func(i *workereni.Interface) { i.Card, i.Index = card, index }
}

func everyCard(i *workereni.Interface) { i.EveryCard = true }

// TestWhatCannotBeIsFoundBefore: nothing is created, and every reason is told.
func TestWhatCannotBeIsFoundBefore(t *testing.T) {
	tests := map[string]struct {
		kind, subnet string
		interfaces   func(*world) []workereni.Interface
		says         []string
	}{
		"a zone without a subnet": {
			"m5.2xlarge", "nodes-b", func(w *world) []workereni.Interface { return []workereni.Interface{w.on("n4-a")} },
			[]string{"availability zone us-west-2b", "they lie in us-west-2a"},
		},
		"more ENIs than the type allows": {
			"m5.large", "nodes-a", func(w *world) []workereni.Interface {
				return []workereni.Interface{w.on("n4-a"), w.on("n6-a"), w.on("tiny-a")}
			}, []string{"m5.large allows 3 ENIs: 1 are attached and 3 are wanted"},
		},
		"more ENIs than a card allows": {
			"hpc7a.96xlarge", "nodes-a", func(w *world) []workereni.Interface {
				return []workereni.Interface{w.on("n4-a"), w.on("n6-a", at(1, 1)), w.on("tiny-a", at(0, 2))}
			}, []string{"network card 0 of hpc7a.96xlarge allows 2 ENIs: 1 are attached and 2 are wanted"},
		},
		"a card that the type has not": {
			"c6in.32xlarge", "nodes-a", func(w *world) []workereni.Interface { return []workereni.Interface{w.on("n4-a", at(2, 1))} },
			[]string{"c6in.32xlarge has no network card 2 (it has 2)"},
		},
		"everything at once": {
			"m5.2xlarge", "nodes-a", func(w *world) []workereni.Interface {
				return []workereni.Interface{
					w.on("n4-a", func(i *workereni.Interface) { i.Groups, i.Stock = []eni.GroupID{w.foreign, "sg-0123"}, 15 }),
					w.on("n6-a", at(0, 1)),
					{Subnet: "subnet-0123", Addressing: workereni.DHCP},
					w.on("tiny-a", at(3, 1)),
					w.on("n6-a", func(i *workereni.Interface) {
						i.Addressing, i.Addresses = workereni.Fixed, []netip.Addr{netip.MustParseAddr("10.10.9.9"), netip.MustParseAddr("10.10.2.1")}
					}),
				}
			}, []string{
				"is in vpc-", "security group sg-0123 does not exist", "a stock of 15 does not fit: an ENI of m5.2xlarge holds 14", "subnet subnet-0123 does not exist",
				"both want card 0 index 1", "has no network card 3", "address 10.10.9.9 is not one", "address 10.10.2.1 is not one",
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, twoZones)
				id := w.instance(tt.kind, tt.subnet)
				_, err := w.launch(w.flow(w.config(tt.interfaces(w)...)), id)
				if !errors.Is(err, workereni.ErrImpossible) {
					t.Fatalf("got %v", err)
				}
				for _, s := range tt.says {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("does not say %q:\n%v", s, err)
					}
				}
				for _, action := range []string{"CreateNetworkInterface", "AttachNetworkInterface", "DeleteNetworkInterface"} {
					if n := w.calls(action, ""); n > 0 {
						t.Errorf("%d × %s", n, action)
					}
				}
			})
		})
	}
}

func TestAFullSubnetIsFoundBefore(t *testing.T) {
	for _, how := range []workereni.Addressing{workereni.DHCP, workereni.Start} {
		t.Run(string(how), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, twoZones)
				for range 11 { // a /28 has 16 addresses, of which the VPC keeps 5
					if _, err := w.lab.Cloud.CreateNetworkInterface(time.Now().Add(-time.Minute), vpc.CreateNetworkInterfaceInput{SubnetID: w.lab.Subnets["tiny-a"]}); err != nil {
						t.Fatal(err)
					}
				}
				cfg := w.config(w.on("n4-a"), w.on("tiny-a", func(i *workereni.Interface) { i.Addressing = how }))
				_, err := w.launch(w.flow(cfg), w.instance("m5.2xlarge", "nodes-a"))
				if !errors.Is(err, workereni.ErrImpossible) || !strings.Contains(err.Error(), "is full") {
					t.Errorf("got %v", err)
				}
				w.wantENIs()
				if n := w.calls("CreateNetworkInterface", ""); n > 0 {
					t.Errorf("%d were created", n)
				}
			})
		})
	}
}

// TestAnIndexOfSomebodyElse: the Amazon VPC CNI was faster. It is told from an ENI of ours that EC2 does not show with its tags yet.
func TestAnIndexOfSomebodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		id := w.instance("m5.2xlarge", "nodes-a")
		e, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{SubnetID: w.lab.Subnets["nodes-a"]})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.lab.Cloud.AttachNetworkInterface(time.Now(), vpc.AttachNetworkInterfaceInput{NetworkInterfaceID: e.ID, InstanceID: string(id), DeviceIndex: 1})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.launch(w.flow(w.config(w.on("n4-a"))), id)
		if want := "card 0 index 1 has " + e.ID + ", which is not ours"; !errors.Is(err, workereni.ErrImpossible) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v", err)
		}
		w.wantENIs()
	})
}

// TestWhatEC2RefusesIsUndone: permissions and limits that only the call tells, at every kind of call.
func TestWhatEC2RefusesIsUndone(t *testing.T) {
	for action, code := range map[string]string{
		"CreateNetworkInterface": "UnauthorizedOperation", "AttachNetworkInterface": "AttachmentLimitExceeded", "ModifyNetworkInterfaceAttribute": "UnauthorizedOperation",
		"DescribeInstances": "UnauthorizedOperation", "DescribeSecurityGroups": "UnauthorizedOperation",
	} {
		for nth := 1; nth <= 2; nth++ {
			t.Run(fmt.Sprintf("%s %d", action, nth), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, twoZones+lags["late"])
					if err := w.lab.Front.SetFaults([]front.Fault{{Action: action, Nth: nth, Count: 1000, Kind: front.ErrorBefore, Code: code}}); err != nil {
						t.Fatal(err)
					}
					_, err := w.launch(w.flow(w.twoENIs()), w.instance("m5.2xlarge", "nodes-a"))
					if err == nil && strings.HasPrefix(action, "Describe") && nth == 2 {
						return // one was enough
					}
					if !errors.Is(err, workereni.ErrImpossible) || !strings.Contains(err.Error(), code) {
						t.Fatalf("got %v", err)
					}
					w.wantENIs()
				})
			})
		}
	}
}

func TestTimeThatIsUpLeavesTheRestToTheNextCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		if err := w.lab.Front.SetFaults([]front.Fault{{Action: "AttachNetworkInterface", Nth: 2, Count: 1000, Kind: front.ErrorBefore, Code: "RequestLimitExceeded"}}); err != nil {
			t.Fatal(err)
		}
		cfg, id := w.twoENIs(), w.instance("m5.2xlarge", "nodes-a")
		ctx, cancel := context.WithTimeout(t.Context(), 299*time.Second)
		defer cancel()
		_, err := w.flow(cfg).Launch(ctx, workereni.Request{Instance: id})
		if !errors.Is(err, workereni.ErrUnfinished) || errors.Is(err, workereni.ErrImpossible) || !strings.Contains(err.Error(), "RequestLimitExceeded") {
			t.Fatalf("got %v", err)
		}
		w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a unattached")
		if err := w.lab.Front.SetFaults(nil); err != nil {
			t.Fatal(err)
		}
		w.mustLaunch(w.flow(cfg), id)
		w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
	})
}

// TestNetworkCards: ENIs on the cards asked for.
func TestNetworkCards(t *testing.T) {
	every := func(cards int) (want []string) {
		for card := range cards {
			want = append(want, fmt.Sprintf("%d:1 n6-a at %d:1 dies", card, card))
		}
		slices.Sort(want)
		return want
	}
	tests := map[string]struct {
		kind       string
		interfaces func(*world) []workereni.Interface
		want       []string
	}{
		"every card of a p5": {"p5.48xlarge", func(w *world) []workereni.Interface { return []workereni.Interface{w.on("n6-a", everyCard)} }, every(32)},
		"both cards of an hpc7a, and the second index of one": {
			"hpc7a.96xlarge", func(w *world) []workereni.Interface {
				return []workereni.Interface{w.on("n6-a", everyCard), w.on("tiny-a", at(1, 0))}
			}, []string{"0:1 n6-a at 0:1 dies", "1:1 n6-a at 1:1 dies", "1:2 tiny-a at 1:2 dies"},
		},
		"the second card of a c6in, at an index that the first has too": {
			"c6in.32xlarge", func(w *world) []workereni.Interface {
				return []workereni.Interface{w.on("n4-a", at(0, 1)), w.on("n6-a", at(1, 1)), w.on("tiny-a", at(1, 7))}
			}, []string{"0:1 n4-a at 0:1 dies", "1:1 n6-a at 1:1 dies", "1:7 tiny-a at 1:7 dies"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, twoZones)
				w.mustLaunch(w.flow(w.config(tt.interfaces(w)...)), w.instance(tt.kind, "nodes-a"))
				w.wantENIs(tt.want...)
			})
		})
	}
}

// TestEFAOnlyCardsAreLeftAlone: the launch put an efa-only interface on every second card.
func TestEFAOnlyCardsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		specs := []vpc.InterfaceSpec{{SubnetID: w.lab.Subnets["nodes-a"]}}
		for card := 1; card < 32; card += 2 {
			specs = append(specs, vpc.InterfaceSpec{SubnetID: w.lab.Subnets["nodes-a"], NetworkCardIndex: card, InterfaceType: "efa-only"})
		}
		out, err := w.lab.Cloud.RunInstances(time.Now().Add(-time.Minute), vpc.RunInstancesInput{
			ImageID: "ami-0123456789abcdef0", InstanceType: "p5.48xlarge", MinCount: 1, MaxCount: 1, Interfaces: specs,
		})
		if err != nil {
			t.Fatal(err)
		}
		w.mustLaunch(w.flow(w.config(w.on("n6-a", everyCard), w.on("tiny-a", at(1, 1)))), eni.InstanceID(out.Instances[0].ID))
		want := []string{"1:1 tiny-a at 1:1 dies"} // named: there is room beside the efa-only one
		for card := 0; card < 32; card += 2 {
			want = append(want, fmt.Sprintf("%d:1 n6-a at %d:1 dies", card, card))
		}
		slices.Sort(want)
		w.wantENIs(want...)
	})
}

func TestAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		cfg := w.config(
			w.on("n4-a", func(i *workereni.Interface) { i.Addressing = workereni.Start }),
			w.on("n6-a", func(i *workereni.Interface) {
				i.Addressing, i.Addresses = workereni.Fixed, []netip.Addr{netip.MustParseAddr("10.10.2.50"), netip.MustParseAddr("10.10.2.40")}
			}),
		)
		for n, want := range [][2]string{{"10.10.1.8", "10.10.2.50"}, {"10.10.1.9", "10.10.2.40"}} { // a reservation covers .0 to .7
			got := w.mustLaunch(w.flow(cfg), w.instance("m5.2xlarge", "nodes-a"))
			if a, b := got[0].Interface.Primary.String(), got[1].Interface.Primary.String(); a != want[0] || b != want[1] {
				t.Errorf("worker %d has %s and %s, want %v", n, a, b, want)
			}
		}
		if _, err := w.launch(w.flow(cfg), w.instance("m5.2xlarge", "nodes-a")); !errors.Is(err, workereni.ErrImpossible) {
			t.Errorf("the list of fixed addresses is used up: %v", err)
		}
	})
}

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones)
		cfg := w.config(w.on("n4-a", keeps))
		gone, alive := w.instance("m5.2xlarge", "nodes-a"), w.instance("m5.2xlarge", "nodes-a")
		w.mustLaunch(w.flow(cfg), gone)
		kept := w.mustLaunch(w.flow(cfg), alive)
		if err := w.client().Detach(t.Context(), kept[0].Attachment); err != nil {
			t.Fatal(err)
		}
		if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(gone)}); err != nil {
			t.Fatal(err)
		}
		sweep := func(age time.Duration, deleted, left int) {
			t.Helper()
			found, err := w.flow(cfg).Sweep(t.Context(), age)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, o := range found {
				if o.Err != nil {
					t.Errorf("%s: %v", o.ID, o.Err)
				}
				if o.Kept == "" {
					n++
				}
			}
			if n != deleted || len(w.enis()) != left {
				t.Errorf("%d were deleted and %d are left, want %d and %d: %+v", n, len(w.enis()), deleted, left, found)
			}
		}
		sweep(time.Hour, 0, 2)
		<-time.After(2 * time.Hour)
		stranger := w.config(w.on("n4-a"))
		stranger.Owner = "group-2"
		if found, err := w.flow(stranger).Sweep(t.Context(), 0); err != nil || len(found) > 0 {
			t.Errorf("another owner's sweep finds %v, %v", found, err)
		}
		sweep(time.Hour, 1, 1)
		sweep(time.Hour, 0, 1)
	})
}
