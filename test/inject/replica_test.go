// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// replica is a process of the injector.
type replica struct {
	t                *testing.T
	cmd              *exec.Cmd
	address, metrics string
	ended            chan struct{}

	mu  sync.Mutex
	log []string
}

// start runs a replica and waits until it listens.
func (c *cluster) start(kubeconfig string, args ...string) *replica {
	c.t.Helper()
	r := &replica{t: c.t, ended: make(chan struct{})}
	r.cmd = exec.Command(filepath.Join(c.programs, "injector"), append([]string{
		"--kubeconfig=" + kubeconfig, "--listen=127.0.0.1:0", "--metrics-address=127.0.0.1:0", "--image=multus-vpc:test",
		"--hosts=127.0.0.1", "--linger=1s",
	}, args...)...)
	stderr, err := r.cmd.StderrPipe()
	c.must(err)
	c.must(r.cmd.Start())
	listening := make(chan struct{})
	go r.read(stderr, listening)
	c.t.Cleanup(r.stop)
	select {
	case <-listening:
	case <-r.ended:
		c.t.Fatalf("the injector ended: %s", r.said())
	}
	return r
}

// read keeps the log, and takes the addresses out of it.
func (r *replica) read(from io.Reader, listening chan struct{}) {
	defer close(r.ended)
	for lines := bufio.NewScanner(from); lines.Scan(); {
		r.mu.Lock()
		r.log = append(r.log, lines.Text())
		r.mu.Unlock()
		var line struct{ Msg, Address, Metrics string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" {
			r.address, r.metrics = line.Address, line.Metrics
			close(listening)
		}
	}
}

func (r *replica) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.log, "\n")
}

// leave asks the replica to end, and returns at once.
func (r *replica) leave() { _ = r.cmd.Process.Signal(syscall.SIGTERM) } // it may have ended

// stop ends the replica; it must have had nothing to complain of.
func (r *replica) stop() {
	select {
	case <-r.ended:
		return
	default:
	}
	r.leave()
	<-r.ended
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("the injector: %v\n%s", err, r.said())
	}
}

// ready asks the readiness probe.
func (r *replica) ready() error {
	text, err := r.get("/readyz")
	if err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

func (r *replica) get(path string) (string, error) {
	resp, err := http.Get("http://" + r.metrics + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", resp.Status)
	}
	return string(text), err
}

// balancer carries connections to the replicas in turn, as kube-proxy does for a Service.
type balancer struct {
	address string
	mu      sync.Mutex
	to      []string
	turn    atomic.Uint64
}

func balance(t *testing.T) *balancer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{address: ln.Addr().String()}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return // closed
			}
			open.Go(func() { b.carry(from) })
		}
	})
	t.Cleanup(func() {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		open.Wait()
	})
	return b
}

// endpoints are the replicas that get connections from now on.
func (b *balancer) endpoints(of ...*replica) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = nil
	for _, r := range of {
		b.to = append(b.to, r.address)
	}
}

func (b *balancer) carry(from net.Conn) {
	defer from.Close()
	b.mu.Lock()
	endpoints := b.to
	b.mu.Unlock()
	if len(endpoints) == 0 {
		return
	}
	to, err := net.Dial("tcp", endpoints[b.turn.Add(1)%uint64(len(endpoints))])
	if err != nil {
		return // the API server sees its connection end
	}
	defer to.Close()
	var ways sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		ways.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // whoever ends it knows why
			_ = way[0].(*net.TCPConn).CloseWrite()
		})
	}
	ways.Wait()
}
