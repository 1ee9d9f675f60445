// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

const twoWorkers = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2001:db8:10::/56"}
subnets:
- {name: primary,  cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, ipv6: "2001:db8:10:1::/64", az: us-west-2a}
instances:
- name: worker-1
  type: m5.8xlarge
  enis: [{subnet: primary, addresses: [10.10.12.11]}, {subnet: multus-1, addresses: [10.10.1.20, 10.10.1.22], tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
- name: worker-2
  enis: [{subnet: primary}, {subnet: multus-1, addresses: [10.10.1.21, 10.10.1.41], ipv6Addresses: ["2001:db8:10:1::41"], tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
- name: stranger
  enis: [{subnet: multus-1, addresses: [10.10.1.30, 10.10.1.31]}]
`

// world is a lab in a synctest bubble, which programs reach through the real SDK.
type world struct {
	lab      *scenario.Lab
	noIMDS   bool // pods do not reach the instance metadata
	noRegion bool // AWS_REGION is not set
}

func newWorld(t *testing.T, ec2 string) *world {
	t.Helper()
	s, err := scenario.Parse([]byte(twoWorkers + ec2))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &world{lab: lab}
}

// RoundTrip is the network of worker-1.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Hostname() != "169.254.169.254" {
		return w.lab.EC2().RoundTrip(r)
	}
	if w.noIMDS {
		return nil, errors.New("dial tcp 169.254.169.254:80: connect: no route to host")
	}
	return w.lab.IMDS("worker-1").RoundTrip(r)
}

func (w *world) sdk(context.Context) (aws.Config, error) {
	c := aws.Config{
		Region: w.lab.Cloud.Region(), Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""), HTTPClient: &http.Client{Transport: w},
	}
	if w.noRegion {
		c.Region = ""
	}
	return c, nil
}

// owner is the instance whose ENI the VPC routes the address to, "" for none.
func (w *world) owner(a string) string {
	view := w.lab.Cloud.View(time.Now())
	id := view.Routes()[netip.MustParseAddr(a)]
	for name, ids := range w.lab.ENIs {
		if slices.Contains(ids, id) {
			return name
		}
	}
	return id
}

// calls counts the lab's EC2 calls by action.
func (w *world) calls(action string) (n int) {
	for _, c := range w.lab.Front.Calls() {
		if c.Action == action {
			n += c.Count
		}
	}
	return n
}

func (w *world) faults(t *testing.T, fs []front.Fault) {
	t.Helper()
	if err := w.lab.Front.SetFaults(fs); err != nil {
		t.Fatal(err)
	}
}

// move is what somebody else does.
func (w *world) move(t *testing.T, worker, a string) {
	t.Helper()
	_, err := w.lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{
		NetworkInterfaceID: w.lab.ENIs[worker][1], Addresses: []netip.Addr{netip.MustParseAddr(a)}, AllowReassignment: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// await waits, in the bubble's time, until an instance has the address.
func (w *world) await(t *testing.T, a, owner string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for w.owner(a) != owner {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s is on %q and not on %q", a, w.owner(a), owner)
		}
	}
	synctest.Wait()
}

// pod is a pod's network namespace in memory.
type pod struct {
	mu         sync.Mutex
	interfaces []attachment.Interface
	hidden     bool // net1 is not there
	tell       func(attachment.Change)
}

// pod makes a pod on worker-1, whose net1 carries the addresses.
func (w *world) pod(addrs ...string) *pod {
	e, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs["worker-1"][1])
	net1 := attachment.Interface{Name: "net1", Index: 3, Kind: attachment.KindIPVlan, MAC: eni.ParseMAC(e.MAC)}
	for _, a := range addrs {
		net1.Addresses = append(net1.Addresses, netip.MustParsePrefix(a))
	}
	return &pod{interfaces: []attachment.Interface{
		{Name: "eth0", Index: 2, Kind: "veth", MAC: "0a:00:00:00:00:01", Addresses: []netip.Prefix{netip.MustParsePrefix("10.10.12.77/32")}}, net1,
	}}
}

func (p *pod) Interfaces() ([]attachment.Interface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hidden {
		return slices.Clone(p.interfaces[:1]), nil
	}
	return slices.Clone(p.interfaces), nil
}

func (p *pod) Watch(ctx context.Context, tell func(attachment.Change)) error {
	p.mu.Lock()
	p.tell = tell
	p.mu.Unlock()
	tell(attachment.Change{})
	<-ctx.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell = nil
	return nil
}

// hide and show remove and make net1.
func (p *pod) hide() { p.change(func() { p.hidden = true }) }
func (p *pod) show() { p.change(func() { p.hidden = false }) }

func (p *pod) rename(name string) { p.change(func() { p.interfaces[1].Name = name }) }

func (p *pod) change(f func()) {
	p.mu.Lock()
	f()
	tell := p.tell
	p.mu.Unlock()
	if tell != nil {
		tell(attachment.Change{}) // as podlink tells of links
	}
}

// running is a program that was started.
type running struct {
	dead string // file of its termination message
	stop context.CancelFunc
	done chan struct{}
	code int

	mu  sync.Mutex
	log strings.Builder
}

// start starts a program in the pod; SIGTERM comes after an hour at the latest.
func (w *world) start(t *testing.T, name string, mode Mode, p *pod, env string) *running {
	t.Helper()
	r := &running{dead: filepath.Join(t.TempDir(), "termination-log"), done: make(chan struct{})}
	if err := os.WriteFile(r.dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{
		"MULTUS_VPC_NETWORKS": "n6", "MULTUS_VPC_NODE_ADDRESS": "10.10.12.11", "MULTUS_VPC_TERMINATION_LOG": r.dead,
		"MULTUS_VPC_SYNC_SOCKET": "/nowhere/sync.sock",
	}
	if k, v, ok := strings.Cut(env, "="); ok {
		variables[k] = v
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	r.stop = cancel
	program := Program{
		Name: name, Mode: mode, Args: []string{"--metrics-address="}, Getenv: func(k string) string { return variables[k] }, Stdout: r, Stderr: r,
		pod: p, sdk: w.sdk,
	}
	go func() {
		defer close(r.done)
		r.code = program.Run(ctx)
	}()
	t.Cleanup(func() {
		r.terminate()
		r.wait()
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

// Write implements [io.Writer] for the log.
func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

func (r *running) terminate() { r.stop() }

func (r *running) wait() int {
	<-r.done
	return r.code
}

func (r *running) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// message is the termination message.
func (r *running) message() string {
	text, err := os.ReadFile(r.dead)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// says demands words of the log.
func (r *running) says(t *testing.T, words string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !strings.Contains(r.log.String(), words) {
		t.Errorf("the log does not say %q", words)
	}
}

func netipString(i int) string { return fmt.Sprintf("10.10.1.%d/24", 100+i) }
