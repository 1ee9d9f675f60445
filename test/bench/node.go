// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

const (
	// A c5.18xlarge has 15 ENIs with 50 addresses each, one of which is the ENI's own; the first ENI is the worker's.
	fullENIs, fullPods = 14, 14 * 49
	// burstPods is the number of pods that kubelet runs on a node by default, and burstENIs the fewest that hold them.
	// https://kubernetes.io/docs/setup/best-practices/cluster-large/
	burstPods, burstENIs = 110, 3
	// patience of a client on a worker that has to get its addresses first; the agent gives up earlier, and says why.
	patience = time.Minute
	// tries of an ADD that the agent asks to repeat, as kubelet does.
	tries = 10
)

// node is what a worker as a whole costs, with an agent of the default configuration.
type node struct {
	// BurstCalls are the calls that change something in EC2 while [burstPods] come at once to a worker without stock.
	BurstPods  int `json:"burstPods"`
	BurstENIs  int `json:"burstENIs"`
	BurstCalls int `json:"burstCalls"`
	// Resident is the agent's memory when every address of the worker is a pod's, Peak the most that it ever was.
	FullPods int   `json:"fullPods"`
	Resident int64 `json:"residentBytes"`
	Peak     int64 `json:"peakBytes"`
}

// callsPerPod is the share of a call that a pod of the burst costs.
func (n node) callsPerPod() float64 { return float64(n.BurstCalls) / float64(n.BurstPods) }

// measureNode fills a worker of its own, first the burst and then the rest, by requests to the agent without a plugin.
func measureNode(ctx context.Context, bin string, log io.Writer) (_ node, err error) {
	n := node{BurstPods: burstPods, BurstENIs: burstENIs, FullPods: fullPods}
	id := "bench" + strconv.Itoa(os.Getpid())
	l, err := lab.Up(ctx, theWorker(fullENIs, nil), lab.Config{Prefix: id + "full", Log: log})
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	w, err := worker.New(l, "worker-1", bin)
	if err != nil {
		return n, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\nthe agent said:\n%s", err, w.Log())
		}
		err = errors.Join(err, w.Stop(), w.Close())
	}()
	if err = w.Start("{}"); err != nil {
		return n, err
	}
	if err = ready(ctx, w); err != nil {
		return n, err
	}
	before := writes(l)
	if err = fill(ctx, w, 0, burstPods, burstENIs); err != nil {
		return n, err
	}
	n.BurstCalls = writes(l) - before
	if err = fill(ctx, w, burstPods, fullPods, fullENIs); err != nil {
		return n, err
	}
	n.Resident, n.Peak, err = memory(w.Socket())
	return n, err
}

// ready waits until the agent knows its ENIs.
func ready(ctx context.Context, w *worker.Worker) error {
	ctx, cancel := context.WithTimeoutCause(ctx, warmTimeout, fmt.Errorf("not within %v", warmTimeout))
	defer cancel()
	return w.Await(ctx, func(s *agentapi.Status) string {
		if len(s.ENIs) <= fullENIs {
			return fmt.Sprintf("ENIs: %d of %d are known", len(s.ENIs), fullENIs+1)
		}
		return ""
	})
}

// writes counts the calls that change something, whatever came of them.
func writes(l *lab.Running) int {
	sum := 0
	for _, c := range l.Front.Calls() {
		if !strings.HasPrefix(c.Action, "Describe") && !strings.HasPrefix(c.Action, "Get") {
			sum += c.Count
		}
	}
	return sum
}

// fill adds the pods from first up to end, all at once: to ENIs by turns as long as all have room, so that the i-th ENI
// has as many as any other when end is a multiple.
func fill(ctx context.Context, w *worker.Worker, first, end, enis int) error {
	room := make([]int, enis)
	for pod := range first { // those of the burst
		room[pod%burstENIs]--
	}
	var group errgroup.Group
	for pod := first; pod < end; pod++ {
		at := 0
		for i := range room {
			if room[i] > room[at] {
				at = i
			}
		}
		room[at]--
		group.Go(func() error {
			return w.Do(func() error { return addPod(ctx, w.Socket(), pod, at+1) })
		})
	}
	return group.Wait()
}

// addPod is a runtime's ADD, which it repeats while the agent says so.
func addPod(ctx context.Context, socket string, pod, deviceIndex int) error {
	a := attachment.Attachment{
		Key:     attachment.Key{ContainerID: fmt.Sprintf("%064x", pod), IfName: "net1"},
		Network: "bench",
		Netns:   attachment.Netns{Path: fmt.Sprintf("/var/run/netns/cni-%032x", pod), Inode: uint64(pod) + 1, Device: 4, Cookie: uint64(pod) + 1},
		Pod:     attachment.Pod{Namespace: "default", Name: fmt.Sprintf("bench-%d", pod), UID: fmt.Sprintf("%036x", pod)},
	}
	req := agentapi.Request{Method: agentapi.MethodAdd, Attachment: &a, Query: &attachment.Query{Selector: eni.Selector{DeviceIndex: &deviceIndex}}}
	var err error
	for range tries {
		_, err = agentapi.Client{Socket: socket, Timeout: patience}.Call(ctx, req)
		if e, ok := errors.AsType[*agentapi.Error](err); !ok || e.Code != agentapi.CodeTryAgainLater {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("ADD of pod %d on device index %d: %w", pod, deviceIndex, err)
	}
	return nil
}

// memory is what the process that listens on the socket has in memory, and the most that it ever had.
func memory(socket string) (resident, peak int64, err error) {
	pid, err := listener(socket)
	if err != nil {
		return 0, 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	return statusBytes(text)
}

// statusBytes reads VmRSS and VmHWM (proc_pid_status(5)).
func statusBytes(status []byte) (resident, peak int64, err error) {
	sizes := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if number, ok := strings.CutSuffix(strings.TrimSpace(value), " kB"); ok {
			if sizes[name], err = strconv.ParseInt(number, 10, 64); err != nil {
				return 0, 0, fmt.Errorf("size %s of a process: %w", name, err)
			}
		}
	}
	if sizes["VmRSS"] == 0 || sizes["VmHWM"] == 0 {
		return 0, 0, errors.New("the process's status has no sizes; it has ended")
	}
	return sizes["VmRSS"] << 10, sizes["VmHWM"] << 10, nil
}

// listener is the process that listens on the socket, by SO_PEERCRED (unix(7)).
func listener(socket string) (pid int32, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, inner); err != nil {
		return 0, fmt.Errorf("find who listens on %s: %w", socket, err)
	}
	return cred.Pid, nil
}
