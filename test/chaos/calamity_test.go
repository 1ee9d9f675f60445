// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// calamity befalls one worker, or all of them through EC2. It is over when it returns.
type calamity struct {
	name string
	on   func(ctx context.Context, w *node, rng *rand.Rand)
}

// calamities are what an epoch may bring beside the kills. Every run meets each of them before it meets one again.
func calamities() []calamity {
	return []calamity{
		{"worker lost", lose},
		{"worker rebooted", reboot},
		{"cut from EC2", func(ctx context.Context, w *node, rng *rand.Rand) { partition(ctx, rng, w, w.ec2) }},
		{"cut from the metadata", func(ctx context.Context, w *node, rng *rand.Rand) { partition(ctx, rng, w, w.imds) }},
		{"cut from both", func(ctx context.Context, w *node, rng *rand.Rand) { partition(ctx, rng, w, w.ec2, w.imds) }},
		{"disk full", fillDisk},
		{"agent stopped", suspend},
		{"agent restarted in order", upgrade},
		{"throttled", throttle},
		{"EC2 breaks", storm},
		{"replies lost", loseReplies},
		{"strangers", strangers},
	}
}

// killAgent is the ordinary calamity: SIGKILL, and another life at once or a little later.
// It reports whether there was a life to end.
func killAgent(ctx context.Context, w *node, rng *rand.Rand) bool {
	on := w.powered()
	busy := w.busy()
	if on.Err() != nil || !w.endAgent(syscall.SIGKILL) {
		return false
	}
	w.scene.tally.killed("agent", busy)
	w.note("agent killed")
	if rng.IntN(3) == 0 {
		w.scene.pause(ctx, between(rng, 0, 1500*time.Millisecond))
	}
	w.startAgent(on)
	return true
}

// killPlugin kills one of the plugins in flight, if there is any, and reports whether it did.
func killPlugin(w *node, rng *rand.Rand) bool {
	open := w.runtime.InFlight()
	if len(open) == 0 {
		return false
	}
	c := open[rng.IntN(len(open))]
	c.Shoot()
	<-c.Done
	if c.Shot {
		w.scene.tally.killed("plugin", true)
		w.note("plugin killed in %s", c.Command)
	}
	return c.Shot
}

// lose terminates the worker's instance and launches another, whose disk is new or an image of the old one's.
func lose(ctx context.Context, w *node, rng *rand.Rand) {
	s := w.scene
	w.powerOff()
	s.judge.Lost(w.name)
	if _, err := s.lab.Cloud.TerminateInstances(time.Now(), []string{w.instance}); err != nil {
		s.fail("terminate %s: %v", w.name, err)
		return
	}
	w.note("lost")
	s.pause(ctx, between(rng, 0, time.Second))
	name := fmt.Sprintf("worker-%d", s.launched.Add(1))
	launch, err := s.lab.Cloud.RunInstances(time.Now(), vpc.RunInstancesInput{
		ImageID: "ami-0123456789abcdef0", InstanceType: "m5.2xlarge", MinCount: 1, MaxCount: 1,
		Interfaces:    []vpc.InterfaceSpec{{SubnetID: s.lab.Subnets["primary"]}, {DeviceIndex: 1, SubnetID: s.lab.Subnets["pods"]}},
		Tags:          map[string]string{"Name": name},
		InterfaceTags: map[string]string{"node.k8s.amazonaws.com/no_manage": "true"},
	})
	if err != nil {
		s.fail("launch %s: %v", name, err)
		return
	}
	id := launch.Instances[0].ID
	netns, err := s.lab.AwaitInstance(s.ctx, id)
	if err != nil {
		s.fail("%v", err)
		return
	}
	if err = os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
		s.fail("%v", err)
		return
	}
	fresh, err := s.newNode(name, id, netns)
	if err == nil && rng.IntN(2) == 0 {
		fresh.note("starts from the image of %s's disk", w.name)
		err = os.CopyFS(fresh.stateDir(), os.DirFS(w.stateDir()))
	}
	if err == nil {
		err = fresh.powerOn(false)
	}
	if err != nil {
		s.fail("bring %s up: %v", name, err)
		return
	}
	fresh.note("takes the place of %s", w.name)
	s.replace(w, fresh)
}

// reboot ends all that runs on the worker; EC2 and the metadata know nothing of it.
func reboot(ctx context.Context, w *node, rng *rand.Rand) {
	w.powerOff()
	w.note("rebooted")
	w.scene.pause(ctx, between(rng, 0, time.Second))
	if err := w.powerOn(true); err != nil {
		w.scene.fail("boot %s: %v", w.name, err)
	}
}

// partition cuts cables for a while. Half of the times the agent is killed meanwhile.
func partition(ctx context.Context, rng *rand.Rand, w *node, cables ...*cable) {
	how := 1 + fate(rng.IntN(int(numFates)-1))
	late := rng.IntN(2) == 0
	w.note("cut: %s", how)
	for _, c := range cables {
		if err := c.cut(how, late); err != nil {
			w.scene.fail("cut a cable of %s: %v", w.name, err)
		}
	}
	long := w.scene.weather.cut
	w.scene.pause(ctx, between(rng, time.Second, long/2))
	if rng.IntN(2) == 0 {
		killAgent(ctx, w, rng)
	}
	w.scene.pause(ctx, between(rng, 0, long/2))
	for _, c := range cables {
		if err := c.cut(whole, late); err != nil {
			w.scene.fail("mend a cable of %s: %v", w.name, err)
		}
	}
	w.note("cable mended, what it held back arrives: %t", late)
}

// fillDisk leaves the ledger no room for a while. Half of the times the agent is killed meanwhile.
func fillDisk(ctx context.Context, w *node, rng *rand.Rand) {
	ballast := filepath.Join(w.stateDir(), "ballast")
	w.setFull(true)
	f, err := os.Create(ballast)
	if err == nil {
		for block := make([]byte, 4096); err == nil; {
			_, err = f.Write(block)
		}
		_ = f.Close() // what does not fit is what it is for
	}
	if !errors.Is(err, syscall.ENOSPC) {
		w.scene.fail("fill the disk of %s: %v", w.name, err)
	}
	w.note("disk full")
	w.scene.pause(ctx, between(rng, 500*time.Millisecond, 2*time.Second))
	if rng.IntN(2) == 0 {
		killAgent(ctx, w, rng)
	}
	w.scene.pause(ctx, between(rng, 0, 2*time.Second))
	if err := os.Remove(ballast); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.scene.fail("%v", err)
	}
	w.note("disk has room")
	w.setFull(false)
}

func (w *node) setFull(full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.full = full
}

// suspend stops the agent's process, as a machine does that has no time or no memory for it.
func suspend(ctx context.Context, w *node, rng *rand.Rand) {
	w.signal(syscall.SIGSTOP)
	w.note("agent stopped")
	w.scene.pause(ctx, between(rng, 100*time.Millisecond, 6*time.Second))
	w.signal(syscall.SIGCONT)
	w.note("agent goes on")
}

func (w *node) signal(sig syscall.Signal) {
	w.power.Lock()
	defer w.power.Unlock()
	w.agent.Signal(sig)
}

// upgrade ends the agent as the kubelet does, twice.
func upgrade(ctx context.Context, w *node, rng *rand.Rand) {
	for range 2 {
		on := w.powered()
		if on.Err() != nil || !w.endAgent(syscall.SIGTERM) {
			return
		}
		w.note("agent ended in order")
		w.scene.pause(ctx, between(rng, 0, 500*time.Millisecond))
		w.startAgent(on)
		w.scene.pause(ctx, between(rng, 0, 2*time.Second))
	}
}

// throttle refuses nearly all requests for a while.
func throttle(ctx context.Context, w *node, rng *rand.Rand) {
	w.scene.faults(ctx, rng, front.Fault{Kind: front.ErrorBefore, Code: "RequestLimitExceeded", Probability: 0.9})
}

// storm mixes all that an endpoint can do wrong.
func storm(ctx context.Context, w *node, rng *rand.Rand) {
	w.scene.faults(ctx, rng,
		front.Fault{Kind: front.ErrorBefore, Probability: 0.15}, front.Fault{Kind: front.ErrorAfter, Probability: 0.2},
		front.Fault{Kind: front.ServerError, Probability: 0.2}, front.Fault{Kind: front.LostReply, Probability: 0.1},
		front.Fault{Kind: front.Slow, Probability: 0.3, Delay: time.Second})
}

// loseReplies does what is asked, and does not say so.
func loseReplies(ctx context.Context, w *node, rng *rand.Rand) {
	var all []front.Fault
	for _, action := range []string{"AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"} {
		all = append(all, front.Fault{Action: action, Kind: front.LostReply, Probability: 0.7})
	}
	w.scene.faults(ctx, rng, all...)
}

// faults lets EC2 go wrong for a while.
func (s *scene) faults(ctx context.Context, rng *rand.Rand, faults ...front.Fault) {
	if err := s.lab.Front.SetFaults(faults); err != nil {
		s.fail("%v", err)
	}
	s.note("EC2", "goes wrong: %+v", faults)
	s.pause(ctx, between(rng, 2*time.Second, 6*time.Second))
	if err := s.lab.Front.SetFaults(nil); err != nil {
		s.fail("%v", err)
	}
	s.note("EC2", "goes right again")
}

// strangers take and give back addresses of the pool's ranges.
func strangers(ctx context.Context, w *node, rng *rand.Rand) {
	for range 10 {
		w.scene.meddle(rng)
		w.scene.pause(ctx, between(rng, 50*time.Millisecond, 500*time.Millisecond))
	}
}
