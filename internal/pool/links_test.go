// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// needLink is what vpcipvlan asks for.
func needLink() attachment.Query { return attachment.Query{NeedLink: true} }

// change replaces the links of the host and tells the pool, as the kernel's event does.
func (n *node) changeLinks(change func([]attachment.Link) []attachment.Link) {
	n.host.mu.Lock()
	n.host.links = change(slices.Clone(n.host.links))
	n.host.mu.Unlock()
	n.LinksChanged()
}

// holds maps container IDs to the states of their holds.
func (n *node) holds() map[string]string {
	all := map[string]string{}
	for _, h := range n.Status().Holds {
		all[h.ContainerID] = h.State.String()
	}
	return all
}

func TestLinkThatVanishesLosesItsHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer func() { n.stop() }()
		a, b := n.pod("child"), n.pod("elsewhere")
		addr := n.mustAdd(a, needLink())
		n.mustAdd(b, any1()) // vpcipam alone: what becomes of the address is not known
		time.Sleep(time.Minute)

		began := time.Now()
		n.changeLinks(func(ls []attachment.Link) []attachment.Link { return ls[:1] })
		if got := n.holds(); got["child"] != "lost" || got["elsewhere"] != "held" || time.Since(began) != 0 {
			t.Errorf("%s after the event: %v", time.Since(began), got)
		}
		limited, err := n.Readiness(any1())
		if r := refusal(t, err); !limited || !strings.Contains(r.Text, "the interfaces of 1 attachments") {
			t.Errorf("STATUS: limited %t, %q", limited, r.Text)
		}
		if err := n.Check(a.Key, nil); refusal(t, err).Reason != pool.Mismatch {
			t.Errorf("CHECK: %v", err)
		}
		if all := strings.Join(n.Status().Problems, "\n"); !strings.Contains(all, "delete their pods") {
			t.Errorf("the status does not say so: %s", all)
		}
		n.crash() // and it is known after a restart
		<-n.Ready()
		if got := n.holds()["child"]; got != "lost" {
			t.Errorf("after a restart the hold is %s", got)
		}
		time.Sleep(time.Hour)
		if w.owner(addr) != w.lab.ENIs["worker-1"][1] {
			t.Error("the address was given up")
		}

		// The driver makes a new device for the ENI. The pod's interface is not on it.
		n.netns.drop(a.Netns.Path)
		n.changeLinks(func(ls []attachment.Link) []attachment.Link {
			return append(ls, attachment.Link{Name: "eth1", Index: 9, MTU: 9001, MAC: n.mac(1), Up: true})
		})
		if got := n.holds()["child"]; got != "lost" {
			t.Errorf("on a link that was made anew the hold is %s", got)
		}
		if got := n.mustAdd(a, needLink()); got != addr {
			t.Errorf("a repeated ADD gets %s, not %s", got, addr)
		}
		if got := n.holds()["child"]; got != "held" {
			t.Errorf("after a repeated ADD the hold is %s", got)
		}
		if limited, err := n.Readiness(any1()); limited || err != nil {
			t.Errorf("STATUS: limited %t, %v", limited, err)
		}
	})
}

func (n *node) mac(index int) (mac eni.MAC) {
	for _, e := range n.Status().ENIs {
		if e.ENI.DeviceIndex == index {
			mac = e.ENI.MAC
		}
	}
	return mac
}

func TestLinkOfWhichThePodHasAChildIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		a := n.pod("a")
		n.mustAdd(a, needLink())
		n.changeLinks(func(ls []attachment.Link) []attachment.Link {
			ls[1].Name = "ens6" // a rename is no event
			return ls
		})
		if got := n.holds()["a"]; got != "held" || n.Status().ENIs[1].Link.Name != "ens6" {
			t.Errorf("after a rename: %s on %+v", got, n.Status().ENIs[1].Link)
		}
		n.changeLinks(func(ls []attachment.Link) []attachment.Link {
			ls[1].Index = 9 // the plugin was faster than the event
			return ls
		})
		if got := n.holds()["a"]; got != "held" {
			t.Errorf("its namespace carries the address, and it is %s", got)
		}
	})
}

func TestENIAttachedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		n.mustAdd(n.pod("a"), any1())
		time.Sleep(10 * time.Minute)

		subnet, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs["worker-1"][1])
		e, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{
			SubnetID: subnet.SubnetID, Tags: map[string]string{"node.k8s.amazonaws.com/no_manage": "true"},
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // until EC2 knows it everywhere
		att, err := w.lab.Cloud.AttachNetworkInterface(time.Now(), vpc.AttachNetworkInterfaceInput{
			InstanceID: w.lab.Instances["worker-1"], NetworkInterfaceID: e.ID, DeviceIndex: 2,
		})
		if err != nil {
			t.Fatal(err)
		}
		link := attachment.Link{Name: "eth2", Index: 4, MTU: 1500, MAC: eni.ParseMAC(e.MAC)} // DOWN, as AL2023 leaves it
		n.changeLinks(func(ls []attachment.Link) []attachment.Link { return append(ls, link) })
		eventually(t, 10*time.Second, "the ENI is known", func() bool { return len(n.Status().ENIs) == 3 })
		if n.host.ups != 0 {
			t.Error("the link of an ENI without pods was brought up")
		}
		q := needLink()
		two := 2
		q.Selector.DeviceIndex = &two
		n.mustAdd(n.pod("b"), q)
		if links, _ := n.host.Links(); !links[2].Up || links[2].MTU != 9001 {
			t.Errorf("the link of the ENI that was selected is %+v", links[2])
		}

		// And detached: link first, then the metadata.
		if err := w.lab.Cloud.DetachNetworkInterface(time.Now(), att.ID); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		n.changeLinks(func(ls []attachment.Link) []attachment.Link { return ls[:2] })
		if got := n.holds(); got["b"] != "lost" || time.Since(began) != 0 {
			t.Errorf("%s after the event: %v", time.Since(began), got)
		}
		eventually(t, time.Minute, "EC2 says so too", func() bool {
			return strings.Contains(strings.Join(n.Status().Problems, "\n"), "no longer attached")
		})
		if got := n.holds(); got["a"] != "held" {
			t.Errorf("the pod of another ENI: %v", got)
		}
		n.del(attachment.Attachment{Key: attachment.Key{ContainerID: "b", IfName: "net1"}, Netns: attachment.Netns{Path: "/run/netns/b"}})
		eventually(t, 2*time.Minute, "nothing of it is left", func() bool { _, there := n.holds()["b"]; return !there })
	})
}

// TestOneFamilyLost: of a dual-stack pod one address is taken away. Nothing of the other is forgotten when it goes.
func TestOneFamilyLost(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		inLab(t, dual, func(t *testing.T, w *world, n *node) {
			a := n.pod("a")
			addrs, err := n.addAll(a, attachment.Query{Families: []string{attachment.IPv4, attachment.IPv6}})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			gone := addrs[0]
			unassign := w.lab.Cloud.UnassignPrivateIPAddresses
			if v6 {
				gone = addrs[1]
				unassign = func(now time.Time, in vpc.UnassignInput) error {
					_, err := w.lab.Cloud.UnassignIPv6Addresses(now, in)
					return err
				}
			}
			if err := unassign(time.Now(), vpc.UnassignInput{NetworkInterfaceID: w.lab.ENIs["worker-1"][1], Addresses: []netip.Addr{gone}}); err != nil {
				t.Fatal(err)
			}
			eventually(t, 3*time.Minute, "lost", func() bool { return n.holds()["a"] == "lost" })
			n.del(a)
			eventually(t, 3*time.Minute, "the other one cooled and is free", func() bool { return n.count("cooling")+n.count("held")+n.count("lost") == 0 })
			w.agreeAll(n)
		})
	}
}

// TestLinksOfOthersCostNothing: the cluster's own CNI makes a link on the host for every pod.
func TestLinksOfOthersCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		n.mustAdd(n.pod("a"), needLink())
		time.Sleep(10 * time.Minute)
		ec2, scans := w.lab.Front.Calls(), n.netns.scanned()
		for i := range 100 {
			n.changeLinks(func(ls []attachment.Link) []attachment.Link {
				return append(ls, attachment.Link{Name: fmt.Sprintf("eni%d", i), Index: 100 + i, MAC: eni.MAC(fmt.Sprintf("0e:00:00:00:00:%02x", i)), Up: true})
			})
			time.Sleep(100 * time.Millisecond)
		}
		if !slices.Equal(ec2, w.lab.Front.Calls()) {
			t.Error("EC2 was asked")
		}
		if more := n.netns.scanned() - scans; more > 1 {
			t.Errorf("the namespaces were scanned %d times in 10 s", more)
		}
	})
}

func TestAddressOnAHostLinkIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		addr := n.mustAdd(n.pod("a"), needLink())
		set := func(addrs map[netip.Addr]string) {
			n.host.mu.Lock()
			defer n.host.mu.Unlock()
			n.host.addrs = addrs
		}
		reported := func() bool {
			return strings.Contains(strings.Join(n.Status().Problems, "\n"), "the operating system configured ["+addr.String()+"] on eth1")
		}
		set(map[netip.Addr]string{addr: "eth1", netip.MustParseAddr("10.10.12.5"): "eth0"})
		eventually(t, 2*n.cfg.DriftInterval, "reported", reported)
		set(nil)
		eventually(t, 2*n.cfg.DriftInterval, "and no more", func() bool { return !reported() })
	})
}
