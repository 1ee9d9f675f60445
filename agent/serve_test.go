// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

// daemon is an agent's process, with what it was given.
type daemon struct {
	t                   *testing.T
	dir, socket, cniBin string
	metrics             string // address
	cmd                 *exec.Cmd
	stderr              bytes.Buffer // after ended
	ended               chan struct{}
}

// started is an agent on a lab whose metadata is behind imds. It runs in this host's network namespace, where it finds no
// link of its ENIs. env is added to its environment.
func started(t *testing.T, running *lab.Running, imds string, env ...string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "multus-vpc-agent-") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if removeErr := os.RemoveAll(dir); removeErr != nil {
			t.Error(removeErr)
		}
	})
	d := &daemon{
		t: t, dir: dir, socket: filepath.Join(dir, "run", "agent.sock"), cniBin: filepath.Join(dir, "cni"),
		metrics: free(t), ended: make(chan struct{}),
	}
	// The agent carries the plugins beside its own executable.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err = os.Mkdir(d.cniBin, 0o755); err != nil {
		t.Fatal(err)
	}
	// By another process: what this one has open for writing while it forks cannot be executed (golang.org/issue/22315).
	if out, cpErr := exec.Command("cp", self, filepath.Join(dir, "agent")).CombinedOutput(); cpErr != nil {
		t.Fatalf("%v: %s", cpErr, out)
	}
	for _, name := range plugins {
		write(t, filepath.Join(dir, name), "the new "+name, 0o755)
		write(t, filepath.Join(d.cniBin, name), "the old "+name, 0o755)
	}
	d.cmd = exec.Command(filepath.Join(dir, "agent"), "--socket", d.socket, "--state-dir", filepath.Join(dir, "state"),
		"--cni-bin-dir", d.cniBin, "--metrics-address", d.metrics)
	d.cmd.Env = []string{ // no Region: the metadata knows it
		"HOME=" + dir, "AWS_ACCESS_KEY_ID=AKAGENT", "AWS_SECRET_ACCESS_KEY=secret",
		"AWS_ENDPOINT_URL_EC2=" + running.EC2URL, "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + imds,
	}
	d.cmd.Env = append(d.cmd.Env, env...)
	d.cmd.Stderr = &d.stderr
	if err = d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.ended)
		_ = d.cmd.Wait() // its exit status is asked for
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // fails only when it has ended
		<-d.ended
		if t.Failed() {
			t.Logf("the agent said:\n%s", d.stderr.String())
		}
	})
	return d
}

// free is an address of the loopback network that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// served is a lab without a fabric.
func served(t *testing.T) *lab.Running {
	t.Helper()
	s, err := scenario.Parse([]byte(fiveENIs))
	if err != nil {
		t.Fatal(err)
	}
	running, err := lab.Serve(t.Context(), s, lab.Config{Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := running.Close(); err != nil {
			t.Error(err)
		}
	})
	return running
}

// get asks the agent by HTTP; status 0 means that nobody answers.
func (d *daemon) get(path string) (status int, body string) {
	resp, err := http.Get("http://" + d.metrics + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// await waits until ok, and fails when the agent ends before.
func (d *daemon) await(what string, ok func() bool) {
	d.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-d.ended:
			d.t.Fatalf("the agent ended (%v) before %s", d.cmd.ProcessState, what)
		case <-late.C:
			d.t.Fatalf("still waiting until %s", what)
		}
	}
}

// stop sends SIGTERM, and demands that the agent ends well.
func (d *daemon) stop() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	<-d.ended
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Errorf("after SIGTERM the agent ended with %v, want exit status 0", d.cmd.ProcessState)
	}
	if _, err := os.Stat(d.socket); !os.IsNotExist(err) {
		d.t.Errorf("the socket is still there: %v", err)
	}
}

func TestAgentTellsItsHealth(t *testing.T) {
	t.Parallel()
	running := served(t)
	if err := running.Front.SetFaults([]front.Fault{{Action: "DescribeInstanceTypes", Probability: 1, Kind: front.ErrorBefore}}); err != nil {
		t.Fatal(err)
	}
	d := started(t, running, running.IMDSURL["worker-1"])
	d.await("it lives", func() bool { status, _ := d.get("/healthz"); return status == http.StatusOK })
	d.await("it says what it waits for", func() bool {
		status, body := d.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "not known yet: not ready: read the limits")
	})
	d.await("EC2 has refused it", func() bool {
		_, body := d.get("/metrics")
		return strings.Contains(body, `multusvpc_ec2_errors_total{action="DescribeInstanceTypes",error="InternalError"} `)
	})
	if err := running.Front.SetFaults(nil); err != nil {
		t.Fatal(err)
	}
	d.await("it is ready", func() bool { status, _ := d.get("/readyz"); return status == http.StatusOK })

	_, body := d.get("/metrics")
	for _, line := range []string{
		`multusvpc_ec2_calls_total{action="DescribeInstanceTypes"} `,
		`multusvpc_ec2_calls_total{action="DescribeNetworkInterfaces"} `,
		`multusvpc_ec2_call_duration_seconds_count{action="DescribeNetworkInterfaces"} `,
	} {
		if !strings.Contains(body, line) {
			t.Errorf("/metrics lacks %s:\n%s", line, body)
		}
	}
	for _, name := range plugins {
		if text, err := os.ReadFile(filepath.Join(d.cniBin, name)); err != nil || string(text) != "the new "+name {
			t.Errorf("installed %s is %q, %v; want the one beside the agent", name, text, err)
		}
	}
	d.stop()
}

func TestAgentWaitsForTheInstanceMetadata(t *testing.T) {
	t.Parallel()
	running := served(t)
	var awake, asked atomic.Bool
	imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(true)
		if !awake.Load() {
			http.Error(w, "not yet", http.StatusNotFound)
			return
		}
		running.Metadata["worker-1"].ServeHTTP(w, r)
	}))
	t.Cleanup(imds.Close)

	asleep := started(t, running, imds.URL)
	asleep.await("it has asked", asked.Load)
	asleep.stop()
	if said := asleep.stderr.String(); !strings.Contains(said, "the instance metadata does not answer; the agent needs IMDSv2, and a hop limit of 2") {
		t.Errorf("the agent does not say what it waits for:\n%s", said)
	}

	asked.Store(false)
	waiting := started(t, running, imds.URL)
	waiting.await("it has asked", asked.Load)
	waiting.await("it lives", func() bool { status, _ := waiting.get("/healthz"); return status == http.StatusOK })
	if status, body := waiting.get("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "instance metadata has not answered") {
		t.Errorf("/readyz without metadata: %d %q, want 503 and why", status, body)
	}
	awake.Store(true)
	waiting.await("it is ready", func() bool { status, _ := waiting.get("/readyz"); return status == http.StatusOK })
	waiting.stop()
}

func TestAgentEndsWhenAPartFails(t *testing.T) {
	t.Parallel()
	running := served(t)
	first := started(t, running, running.IMDSURL["worker-1"])
	first.await("it lives", func() bool { status, _ := first.get("/healthz"); return status == http.StatusOK })
	second := exec.Command(filepath.Join(first.dir, "agent"), "--socket", filepath.Join(first.dir, "second", "agent.sock"),
		"--state-dir", filepath.Join(first.dir, "second-state"), "--metrics-address", first.metrics)
	second.Env = first.cmd.Env
	out, err := second.CombinedOutput()
	if want := fmt.Sprintf("serve metrics on --metrics-address %[1]s: listen tcp %[1]s: bind: address already in use", first.metrics); err == nil || !strings.Contains(string(out), want) {
		t.Errorf("an agent whose metrics address is taken: %v, %s; want %q", err, out, want)
	}
	first.stop()
}
