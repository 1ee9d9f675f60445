// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

// The worker's ENI for pods is a late one, that nobody has brought up. The subnet is no other test's: agents look into every network
// namespace of a machine.
const oneWorker = `
vpc: {cidr: 10.86.0.0/16}
subnets:
- {name: primary, cidr: 10.86.12.0/24, az: us-west-2a}
- {name: pods, cidr: 10.86.1.0/24, az: us-west-2a, reservations: [{cidr: 10.86.1.64/26}]}
instances:
- name: worker-1
  enis: [{subnet: primary}, {subnet: pods, addresses: [10.86.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}]
ec2: {latency: 5ms, propagation: {route: 50ms, imds: 100ms, describe: 100ms}}
`

// TestAgentInItsContainer runs the agent as the DaemonSet says, with its mounts, capabilities, arguments and configuration and with nothing
// else, on a worker of the lab: it installs the plugins, brings a late ENI up without believing advertisements, serves a pod whose
// namespace came after it, sees that it went, and passes the chart's own test.
func TestAgentInItsContainer(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("making namespaces needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := scenario.Parse([]byte(oneWorker))
	must(t, err)
	prefix := fmt.Sprintf("chart%d", os.Getpid())
	l, err := lab.Up(ctx, s, lab.Config{Prefix: prefix, Log: t.Output()})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	programs := build(t)
	w, err := worker.New(l, "worker-1", programs)
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })

	manifests := newHelm(t).render("--set=image.repository=a", "--set=agent.config.reconcileInterval=1,agent.config.massReapDelay=0",
		"--set-string=agent.env.AWS_REGION="+l.Cloud.Region(),
		"--set-string=agent.env.AWS_ENDPOINT_URL_EC2=http://"+lab.EC2InWorker.String(),
		"--set-string=agent.env.AWS_EC2_METADATA_SERVICE_ENDPOINT=http://"+lab.IMDSInWorker.String())
	host := map[string]string{
		"/run/multus-vpc": filepath.Join(w.Dir, "run"), "/run/multus-vpc/agent": filepath.Join(w.Dir, "run", "agent"),
		"/var/lib/multus-vpc": filepath.Join(w.Dir, "state"), "/opt/cni/bin": filepath.Join(w.Dir, "cni"), "configMap": filepath.Join(w.Dir, "config"),
		"/run/netns": "/run/netns", "/proc/sys/net": "/proc/sys/net",
	}
	for _, name := range []string{"state", "cni", "config"} { // which kubelet would make
		must(t, os.Mkdir(filepath.Join(w.Dir, name), 0o755))
	}
	file := at(t, manifests["ConfigMap multus-vpc-agent"], "data", "agent.yaml").(string)
	must(t, os.WriteFile(filepath.Join(w.Dir, "config", "agent.yaml"), []byte(file), 0o600))

	daemon := contain(t, programs, at(t, manifests["DaemonSet multus-vpc-agent"], "spec", "template", "spec").(object), host)
	agent := start(t, w, daemon)
	must(t, w.Await(ctx, func(s *agentapi.Status) string {
		if len(s.Problems) > 0 || len(s.ENIs) < 2 {
			return fmt.Sprintf("the ENIs; problems: %q", s.Problems)
		}
		return ""
	}))
	for _, path := range []string{"/healthz", "/readyz"} {
		if answer := probe(t, w, path); !strings.Contains(answer, " 200 OK") {
			t.Errorf("%s: %s", path, answer)
		}
	}
	p, err := pod.New(prefix + "-pod")
	must(t, err)
	t.Cleanup(func() { must(t, p.Delete()) })
	answer, err := w.CNI(ctx, worker.Call{
		Plugin: "vpcipam", Bin: filepath.Join(w.Dir, "cni"), Command: "ADD", ContainerID: p.Name, Netns: p.Netns, IfName: "net1", Pod: "upf-0",
		Config: []byte(`{"cniVersion": "1.1.0", "name": "n6", "type": "ipvlan", "mode": "l2", "master": "eth1", "ipam": {"type": "vpcipam"}}`),
	})
	must(t, err)
	address, err := answer.Address()
	must(t, err)
	if !netip.MustParsePrefix("10.86.1.64/26").Contains(address.Addr()) {
		t.Errorf("the pod got %s", address)
	}
	var advertisements []byte
	must(t, w.Do(func() (err error) {
		advertisements, err = os.ReadFile("/proc/sys/net/ipv6/conf/eth1/accept_ra")
		return err
	}))
	if string(bytes.TrimSpace(advertisements)) != "0" {
		t.Errorf("accept_ra of the link that the agent brought up is %s", advertisements)
	}
	look := daemon // by kubectl exec
	look.Argv = []string{"/vpcctl", "status", "--fail"}
	for _, c := range []container{look, contain(t, programs, at(t, manifests["Pod multus-vpc-test"], "spec").(object), host)} {
		if err := <-start(t, w, c).ended; err != nil {
			t.Errorf("%q: %v", c.Argv, err)
		}
	}
	must(t, p.Delete()) // and no DEL
	must(t, w.Await(ctx, func(s *agentapi.Status) string {
		for _, a := range s.Attachments {
			if a.State == "held" {
				return "the pod's end"
			}
		}
		return ""
	}))
	must(t, agent.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-agent.ended; err != nil {
		t.Errorf("the agent at its end: %v", err)
	}
}

// running is a container that was started.
type running struct {
	cmd   *exec.Cmd
	ended chan error // its end, once
}

// start starts a container in the worker's network.
func start(t *testing.T, w *worker.Worker, c container) running {
	t.Helper()
	r := running{cmd: c.command(t), ended: make(chan error, 1)}
	r.cmd.Stdout, r.cmd.Stderr = t.Output(), t.Output()
	started, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		runtime.LockOSThread() // never unlocked: the container ends with this thread at the latest
		err := enter(w.Netns)
		if err == nil {
			err = r.cmd.Start()
		}
		started <- err
		if err == nil {
			r.ended <- r.cmd.Wait()
		}
	}()
	must(t, <-started)
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // fails only when it has ended
		<-over
	})
	return r
}

// enter takes the thread into a network namespace.
func enter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Setns(int(f.Fd()), unix.CLONE_NEWNET), f.Close())
}

// probe asks as kubelet does.
func probe(t *testing.T, w *worker.Worker, path string) (answer string) {
	t.Helper()
	must(t, w.Do(func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:61690")
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err = fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path); err != nil {
			return err
		}
		text, err := io.ReadAll(conn)
		answer = string(text)
		return err
	}))
	return answer
}
