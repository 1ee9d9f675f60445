// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// patience is for what must happen: it ends when it has.
const patience = 20 * time.Second

const twoWorkers = `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: primary,  cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24,  az: us-west-2a}
instances:
- {name: worker-1, enis: [{subnet: primary}, {subnet: multus-1, addresses: [10.10.1.20]}]}
- {name: worker-2, enis: [{subnet: primary}, {subnet: multus-1, addresses: [10.10.1.21], link: late}]}
ec2: {propagation: {route: 300ms, imds: 300ms}}
`

func up(t *testing.T) *lab.Running {
	t.Helper()
	s, err := scenario.Parse([]byte(twoWorkers))
	if err != nil {
		t.Fatal(err)
	}
	r, err := lab.Up(t.Context(), s, lab.Config{Prefix: fmt.Sprintf("labtest%d", os.Getpid()), Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func limited(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// podOn makes a pod that has a worker's eth1 for itself, with an address.
func podOn(t *testing.T, r *lab.Running, worker, address string) *pod.Pod {
	t.Helper()
	p, err := pod.New(fmt.Sprintf("labpod%d-%s", os.Getpid(), worker))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Delete(); err != nil {
			t.Error(err)
		}
	})
	if err := p.TakeLink(r.Netns[worker], "eth1"); err != nil {
		t.Fatal(err)
	}
	if err := p.AddAddress("eth1", netip.MustParsePrefix(address), netip.MustParseAddr("10.10.1.1")); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEveryWorkerHasItsOwnMetadataAndEC2(t *testing.T) {
	r := up(t)
	for _, worker := range []string{"worker-1", "worker-2"} {
		client := clientIn(r.Netns[worker])
		if got := metadataOf(t, client, "instance-id"); got != r.Instances[worker] {
			t.Errorf("instance-id in %s: %s, want %s", worker, got, r.Instances[worker])
		}
		resp, err := client.Get("http://" + lab.EC2InWorker.String() + "/_lab/calls")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("EC2 in %s: %s", worker, resp.Status)
		}
	}
	look, err := pod.LookAt(r.Netns["worker-2"])
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(look.Links, func(l string) bool { return len(l) > 14 && l[:14] == "eth1 veth down" }) {
		t.Errorf("links of worker-2: %q, want eth1 down: its ENI is late", look.Links)
	}
}

// clientIn is an HTTP client whose connections begin in a namespace.
func clientIn(path string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = netns.Do(path, func() (err error) {
				c, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}}
}

// metadataOf reads a key with IMDSv2's two steps.
func metadataOf(t *testing.T, client *http.Client, key string) string {
	t.Helper()
	base := "http://" + lab.IMDSInWorker.String() + "/latest/"
	ask := func(method, path string, header map[string]string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			req.Header.Set(k, v)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	token := ask(http.MethodPut, "api/token", map[string]string{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
	return ask(http.MethodGet, "meta-data/"+key, map[string]string{"X-aws-ec2-metadata-token": token})
}

func TestAnAssignedAddressIsRoutedOneLagLater(t *testing.T) {
	r := up(t)
	p1 := podOn(t, r, "worker-1", "10.10.1.70/24")
	p2 := podOn(t, r, "worker-2", "10.10.1.71/24")
	const lag = 300 * time.Millisecond
	if _, err := pod.Ping(limited(t, lag), p1.Netns, netip.MustParseAddr("10.10.1.71")); !errors.Is(err, pod.ErrNoReply) {
		t.Fatalf("ping before the addresses are assigned: %v, want no reply", err)
	}
	start := time.Now()
	for worker, a := range map[string]string{"worker-1": "10.10.1.70", "worker-2": "10.10.1.71"} {
		if _, err := r.Cloud.AssignPrivateIPAddresses(start, vpc.AssignPrivateIPAddressesInput{
			NetworkInterfaceID: r.ENIs[worker][1], Addresses: []netip.Addr{netip.MustParseAddr(a)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pod.Ping(limited(t, patience), p1.Netns, netip.MustParseAddr("10.10.1.71")); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < lag {
		t.Errorf("the address answered after %v, before the route lag of %v was over", took, lag)
	}
	if _, err := pod.Ping(limited(t, patience), p2.Netns, netip.MustParseAddr("10.10.1.1")); err != nil {
		t.Error(err)
	}
}

func TestATerminatedInstanceLosesItsLinks(t *testing.T) {
	r := up(t)
	if _, err := r.Cloud.TerminateInstances(time.Now(), []string{r.Instances["worker-2"]}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		look, err := pod.LookAt(r.Netns["worker-2"])
		if err != nil {
			t.Fatal(err)
		}
		if len(look.Links) == 1 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("links after termination: %q, want lo alone", look.Links)
		}
	}
}

func TestALaunchedInstanceGetsANamespaceAndItsServices(t *testing.T) {
	r := up(t)
	made, err := r.Cloud.AddInstance(time.Now(), vpc.InstanceSetup{
		Name: "worker-3", Type: "m5.2xlarge", ENIs: []vpc.ENISetup{{SubnetID: r.Subnets["primary"]}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path, err := r.AwaitInstance(limited(t, patience), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if want := r.Fabric.Netns("worker-3"); path != want {
		t.Errorf("namespace %s, want %s", path, want)
	}
	if got := metadataOf(t, clientIn(path), "instance-id"); got != made.ID {
		t.Errorf("instance-id in worker-3: %q, want %s", got, made.ID)
	}
	if _, err := r.AwaitInstance(limited(t, time.Millisecond), "i-0"); err == nil {
		t.Error("an instance that does not exist is ready")
	}
}

func TestCloseEndsEverything(t *testing.T) {
	r := up(t)
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	<-r.Ended()
	for name, path := range r.Netns {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("namespace of %s: %v, want it gone", name, err)
		}
	}
	if resp, err := http.Get(r.EC2URL); err == nil {
		resp.Body.Close()
		t.Error("EC2 still answers")
	}
}

func TestAListenAddressInUseLeavesNothing(t *testing.T) {
	s, err := scenario.Parse([]byte(twoWorkers))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	prefix := fmt.Sprintf("labtaken%d", os.Getpid())
	if r, err := lab.Up(t.Context(), s, lab.Config{Prefix: prefix, Listen: taken.Addr().String()}); err == nil {
		r.Close()
		t.Error("no error")
	}
	if names, err := netns.List(prefix); err != nil || len(names) > 0 {
		t.Errorf("namespaces left: %q, %v", names, err)
	}
}
