// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// node is a worker as its kubelet and its DaemonSets see it.
type node struct {
	*ground
	name    string
	netns   string
	address netip.Addr // status.hostIP
	dir     string
	place   *stage.Place
}

func (g *ground) newNode(t *testing.T, name string) *node {
	t.Helper()
	n := &node{ground: g, name: name, netns: g.lab.Netns[name], dir: filepath.Join(g.dir, name)}
	n.address = map[string]netip.Addr{"worker-1": netip.MustParseAddr("10.10.12.11"), "worker-2": netip.MustParseAddr("10.10.12.12")}[name]
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.place, err = stage.Enter(n.netns, filepath.Join(n.dir, "netns")); err != nil {
		t.Fatal(err)
	}
	cleanUp(t, n.place.Leave)
	return n
}

// startAgent starts the worker's agent, until the test ends. What it asks of EC2 is logged.
func (n *node) startAgent(t *testing.T, config string, more ...string) {
	t.Helper()
	closeAll, err := n.lab.ServePod(t.Context(), n.name, n.netns, n.log)
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, closeAll)
	a := &stage.Agent{
		Place: n.place, Netns: n.netns, Dir: filepath.Join(n.dir, "agent"), Bin: n.bin, Config: config,
		Env: slices.Concat(n.environment(), n.aws(), []string{
			"AWS_ENDPOINT_URL_EC2=http://" + lab.EC2InPod.String(), "MULTUS_VPC_SYNC_SOCKET=" + n.syncSocket(),
		}, more),
		Died: func(err error) { t.Errorf("agent of %s: %v", n.name, err) },
	}
	if err = errors.Join(a.Prepare(), a.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.End(syscall.SIGTERM)
		if t.Failed() {
			text, err := os.ReadFile(a.LogFile())
			t.Logf("agent of %s (%v):\n%s", n.name, err, text)
		}
	})
}

// syncSocket is where pods find the agent.
func (n *node) syncSocket() string { return filepath.Join(n.dir, "agent", "run", "sync", "sync.sock") }

func (n *node) socket() string { return (&stage.Agent{Dir: filepath.Join(n.dir, "agent")}).Socket() }

// environment is what every process of the worker has.
func (n *node) environment() []string {
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + n.dir, "TMPDIR=" + n.dir, "USER=root",
		"CNI_PATH=" + n.bin + ":" + n.peers + ":" + n.stack, "MULTUS_VPC_AGENT_SOCKET=" + n.socket(),
	}
}

// aws is how the worker's processes, and its pods through their first interface, reach AWS.
func (n *node) aws() []string {
	return []string{
		"AWS_REGION=" + n.lab.Cloud.Region(),
		"AWS_ENDPOINT_URL_EC2=http://" + lab.EC2InWorker.String(),
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + lab.IMDSInWorker.String(),
	}
}

// run runs a program of the worker to its end.
func (n *node) run(ctx context.Context, program string, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(n.environment(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := n.place.Do(cmd.Start); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s %v on %s: %w\n%s%s", filepath.Base(program), args, n.name, err, &out, &errs)
	}
	return out.Bytes(), nil
}

// daemon runs a program on the worker until the test ends.
func (n *node) daemon(t *testing.T, program string, env []string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(n.environment(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := n.place.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails only when it has ended
		_ = cmd.Wait()         // it was killed
		if t.Failed() {
			t.Logf("%s on %s:\n%s", filepath.Base(program), n.name, &log)
		}
	})
}

// aPod is a pod on a worker.
type aPod struct {
	*pod.Pod
	node   *node
	uid    string
	served bool // AWS listens in its namespace

	sidecar *program // that keeps its addresses registered
}

// newPod makes a pod with nothing but a loopback, as a container runtime does before it calls its network plugin.
func (n *node) newPod(t *testing.T, name string) *aPod {
	t.Helper()
	path, err := n.place.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, func() error { return n.place.Remove(name) })
	h, err := pod.Handle(path)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.LinkSetUp(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}); err != nil {
		t.Fatal(err)
	}
	return &aPod{Pod: &pod.Pod{Name: name, Netns: path}, node: n, uid: name}
}

// program is a container of a pod that runs.
type program struct {
	pod   *aPod
	name  string
	cmd   *exec.Cmd
	log   lockedBuffer
	ended chan struct{}
	dead  string // file of the termination message
}

// start starts a program of ours in the pod, with what the kubelet gives a container of the injector's.
func (p *aPod) start(t *testing.T, name, networks string, more ...string) *program {
	t.Helper()
	c := &program{pod: p, name: name, ended: make(chan struct{}), dead: filepath.Join(t.TempDir(), "termination-log")}
	if err := os.WriteFile(c.dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(filepath.Join(p.node.bin, name))
	c.cmd.Env = append(append([]string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "MULTUS_VPC_TERMINATION_LOG=" + c.dead,
		"MULTUS_VPC_NETWORKS=" + networks, "MULTUS_VPC_NODE_ADDRESS=" + p.node.address.String(), "MULTUS_VPC_VIA=ec2",
	}, p.node.aws()...), more...)
	c.cmd.Stderr = &c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is the pod's, and the program dies with it
		err := setns(p.Netns)
		if err == nil {
			err = c.cmd.Start()
		}
		started <- err
		if err == nil {
			_ = c.cmd.Wait() // its status is in ProcessState
		}
		close(c.ended)
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s in %s: %v", name, p.Name, err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // fails only when it has ended
		<-c.ended
		if t.Failed() {
			t.Logf("%s of %s:\n%s", name, p.Name, c.log.String())
		}
	})
	return c
}

func setns(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Setns(int(f.Fd()), unix.CLONE_NEWNET), f.Close())
}

// end waits for the program's end, which must be a good one.
func (c *program) end(t *testing.T) {
	t.Helper()
	select {
	case <-c.ended:
	case <-t.Context().Done():
		t.Fatalf("%s of %s has not ended: %v", c.name, c.pod.Name, t.Context().Err())
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		reason, err := os.ReadFile(c.dead)
		t.Fatalf("%s of %s ended with status %d: %s %v\n%s", c.name, c.pod.Name, code, reason, err, c.log.String())
	}
}

// stop ends the program as the kubelet does.
func (c *program) stop(t *testing.T) {
	t.Helper()
	c.signal()
	c.end(t)
}

// signal asks the program to end, as the kubelet does.
func (c *program) signal() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
}

// ready waits until the pod's sidecar says that all is registered.
func (c *program) ready(t *testing.T) {
	t.Helper()
	await(t, "the sidecar of "+c.pod.Name+" is ready", func() error {
		_, err := c.pod.get(t.Context(), "/readyz")
		return err
	})
}

// get asks the pod's sidecar, as the kubelet or Prometheus would from the pod's namespace.
func (p *aPod) get(ctx context.Context, path string) (string, error) {
	const metricsAddress = "127.0.0.1:61691"
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = netns.Do(p.Netns, func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAddress+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return string(text), err
}

// lockedBuffer is a buffer that is read while it is written.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
