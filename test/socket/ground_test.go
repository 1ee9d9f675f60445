// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package socket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

// twoWorkers: worker-1 has two ENIs for pods in one subnet, worker-2 one.
const twoWorkers = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2001:db8:10::/56"}
subnets:
- {name: primary,  cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, ipv6: "2001:db8:10:1::/64", az: us-west-2a}
instances:
- name: worker-1
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.10.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-1, addresses: [10.10.1.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
- name: worker-2
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.10.1.22], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
ec2:
  latency: 20ms
  propagation: {route: 100ms, imds: 300ms, describe: 100ms}
`

// agentConfig lets pods have 10.10.1.80 to 95, of which the last six float, and the like in IPv6.
const agentConfig = `
ipCooldownPeriod: 1
reconcileInterval: 1
sync:
  ranges: [10.10.1.80-10.10.1.95, "2001:db8:10:1::80-2001:db8:10:1::95"]
  floating: [10.10.1.90-10.10.1.95, "2001:db8:10:1::90-2001:db8:10:1::95"]
`

// patience is for what takes a moment by design, in an emulated machine.
const patience = time.Minute

type ground struct {
	t       *testing.T
	lab     *lab.Running
	bin     string
	workers map[string]*worker.Worker
	pods    int
}

// up raises lab and agents. Everything goes when the test ends.
func up(t *testing.T) *ground {
	t.Helper()
	g := &ground{t: t, bin: os.Getenv("MULTUS_VPC_BIN"), workers: map[string]*worker.Worker{}}
	if !filepath.IsAbs(g.bin) {
		t.Fatal("MULTUS_VPC_BIN must name a folder absolutely (make test-vm sets it)")
	}
	s, err := scenario.Parse([]byte(twoWorkers))
	g.must(err)
	g.lab, err = lab.Up(t.Context(), s, lab.Config{Prefix: fmt.Sprintf("sock%d", os.Getpid()), Log: t.Output()})
	g.must(err)
	g.cleanUp(g.lab.Close)
	for _, name := range []string{"worker-1", "worker-2"} {
		w, err := worker.New(g.lab, name, g.bin)
		g.must(err)
		g.cleanUp(w.Close)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("agent of %s:\n%s", name, w.Log())
			}
		})
		g.must(w.Start(agentConfig))
		g.workers[name] = w
	}
	for name := range g.workers { // a pod's volume has the folder before its containers start
		g.await(func() string {
			if _, err := os.Stat(g.socket(name)); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	return g
}

// await waits until nothing is missing.
func (g *ground) await(missing func() string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for what := missing(); what != ""; what = missing() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			g.t.Fatalf("after %v: %s", patience, what)
		}
	}
}

func (g *ground) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *ground) cleanUp(f func() error) {
	g.t.Cleanup(func() {
		if err := f(); err != nil {
			g.t.Error(err)
		}
	})
}

// socket is where pods of a worker find its agent.
func (g *ground) socket(worker string) string {
	return filepath.Join(filepath.Dir(filepath.Dir(g.workers[worker].Socket())), "sync", "sync.sock")
}

// pod makes a pod with net1 on a worker's link, and addresses there.
func (g *ground) pod(worker, master string, addrs ...string) *pod.Pod {
	g.t.Helper()
	g.pods++
	p, err := pod.New(fmt.Sprintf("sock%d-%d", os.Getpid(), g.pods))
	g.must(err)
	g.cleanUp(p.Delete)
	g.must(p.AddIPVlan(g.workers[worker].Netns, master, "net1", netip.MustParsePrefix(addrs[0]), netip.Addr{}))
	for _, a := range addrs[1:] {
		g.add(p, "net1", a)
	}
	return p
}

// in changes a pod from within.
func (g *ground) in(p *pod.Pod, ifName string, do func(*netlink.Handle, netlink.Link) error) {
	g.t.Helper()
	h, err := pod.Handle(p.Netns)
	g.must(err)
	defer h.Close()
	l, err := h.LinkByName(ifName)
	g.must(err)
	g.must(do(h.Handle, l))
}

func (g *ground) add(p *pod.Pod, ifName, address string) {
	g.t.Helper()
	g.in(p, ifName, func(h *netlink.Handle, l netlink.Link) error { return h.AddrAdd(l, parseAddr(address)) })
}

func (g *ground) remove(p *pod.Pod, ifName, address string) {
	g.t.Helper()
	g.in(p, ifName, func(h *netlink.Handle, l netlink.Link) error { return h.AddrDel(l, parseAddr(address)) })
}

func parseAddr(s string) *netlink.Addr {
	a, err := netlink.ParseAddr(s)
	if err != nil {
		panic(err) // a constant of a test
	}
	if a.IP.To4() == nil {
		a.Flags = syscall.IFA_F_NODAD
	}
	return a
}

// claim asks a worker's agent from within a pod, as whoever is in there can.
func (g *ground) claim(p *pod.Pod, worker, ifName, address string) *agentapi.Error {
	g.t.Helper()
	a := netip.MustParseAddr(address)
	var resp agentapi.Response
	err := netns.Do(p.Netns, func() (err error) {
		resp, err = agentapi.Client{Socket: g.socket(worker), Timeout: patience}.Call(g.t.Context(), agentapi.Request{
			Method: agentapi.MethodClaim, Interface: ifName, Addresses: []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, OnConflict: attachment.Reassign,
		})
		return err
	})
	if err != nil {
		return agentapi.AsError(err)
	}
	if len(resp.Results) != 1 || resp.Results[0].Addr != a {
		g.t.Fatalf("answer to a claim of %s: %+v", a, resp)
	}
	return resp.Results[0].Error
}

// owner is the ENI that has an address as EC2 has it now, as "worker-1/2" by its worker and place; empty when none has.
func (g *ground) owner(address string) string {
	a := netip.MustParseAddr(address)
	view := g.lab.Cloud.View(time.Now())
	var owners []string
	for name, ids := range g.lab.ENIs {
		for i, id := range ids {
			if e, ok := view.ENI(id); ok && (slices.Contains(e.IPv4(), a) || slices.Contains(e.IPv6, a)) {
				owners = append(owners, fmt.Sprintf("%s/%d", name, i))
			}
		}
	}
	return strings.Join(owners, " and ")
}

// becomes waits until the address is where it should be.
func (g *ground) becomes(address, want string) {
	g.t.Helper()
	g.await(func() string {
		if is := g.owner(address); is != want {
			return fmt.Sprintf("%s is on %q, want %q", address, is, want)
		}
		return ""
	})
}

// sidecar runs the real one in a pod, with the worker's socket and nothing else, and returns what ends it.
func (g *ground) sidecar(p *pod.Pod, worker string) (end func()) {
	g.t.Helper()
	cmd := exec.Command(filepath.Join(g.bin, "sidecar"))
	cmd.Env = []string{
		"MULTUS_VPC_SYNC_SOCKET=" + g.socket(worker), "MULTUS_VPC_METRICS_ADDRESS=127.0.0.1:61691", "MULTUS_VPC_TERMINATION_LOG=/dev/null",
		"MULTUS_VPC_CHECK_INTERVAL=2s",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	ended := make(chan error, 1)
	g.must(netns.Do(p.Netns, cmd.Start))
	go func() { ended <- cmd.Wait() }()
	over := false
	end = func() {
		over = true
		_ = cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
		if err := <-ended; err != nil {
			g.t.Errorf("sidecar of %s: %v", p.Name, err)
		}
	}
	g.t.Cleanup(func() {
		if !over {
			_ = cmd.Process.Kill() // fails only when it has ended
			<-ended
		}
		if g.t.Failed() {
			g.t.Logf("sidecar of %s:\n%s", p.Name, &log)
		}
	})
	return end
}

// reaches demands an answer.
func (g *ground) reaches(p *pod.Pod, to string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	if _, err := pod.Ping(ctx, p.Netns, netip.MustParseAddr(to)); err != nil {
		g.t.Errorf("%s from %s: %v", to, p.Name, err)
	}
}

var errNoLink = errors.New("no such link")

// mac is that of a worker's link.
func (g *ground) mac(worker, name string) (mac []byte) {
	g.t.Helper()
	g.must(g.workers[worker].Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return errors.Join(errNoLink, err)
		}
		mac = l.Attrs().HardwareAddr
		return nil
	}))
	return mac
}
