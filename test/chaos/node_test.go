// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/metadata"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// The agent's times are as short as its configuration allows, so that a minute sees every one of them pass many times.
const (
	cooldown    = time.Second
	warmTarget  = 1
	minTarget   = 2
	agentConfig = "warmIPTarget: 1\nminimumIPTarget: 2\nipCooldownPeriod: 1\nreconcileInterval: 1\nmassReapDelay: 1\n"
)

// Where the cables end in each worker, beside the lab's own services.
var (
	ec2At  = netip.AddrPortFrom(lab.EC2InWorker.Addr(), 8081)
	imdsAt = netip.AddrPortFrom(lab.IMDSInWorker.Addr(), 81)
)

// node is a worker: its disk, its agent and its runtime with the pods.
type node struct {
	scene    *scene
	name     string
	instance string // ID
	netns    string
	dir      string
	eni      string // ID of the ENI for pods
	dev      string // the link of that ENI in the VPC's namespace
	place    *stage.Place
	agent    *stage.Agent
	runtime  *stage.Runtime
	ec2      *cable
	imds     *cable

	power sync.Mutex   // held while the worker is switched on or off, or a process of it begins or ends
	gc    sync.RWMutex // operations on one network wait for a garbage collection

	mu   sync.Mutex
	on   context.Context // ends when the power goes
	off  context.CancelFunc
	full bool // the disk is full
	live []*stage.Sandbox
}

// newNode makes the worker of an instance, switched off.
func (s *scene) newNode(name, instance, netns string) (*node, error) {
	w := &node{scene: s, name: name, instance: instance, netns: netns, dir: filepath.Join(s.dir, name)}
	for _, e := range s.lab.Cloud.View(time.Now()).ENIs(instance) {
		if e.Attachment.DeviceIndex == 1 {
			w.eni = e.ID
		}
	}
	var err error
	if w.dev, err = s.routes.LinkOf(w.eni); err != nil {
		return nil, err
	}
	if err = errors.Join(os.MkdirAll(w.stateDir(), 0o700), w.newBoot()); err != nil {
		return nil, err
	}
	// The ledger's disk is small enough to be filled.
	if err = unix.Mount("tmpfs", w.stateDir(), "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		return nil, fmt.Errorf("mount the disk of %s: %w", name, err)
	}
	s.atEnd(func() error { return unix.Unmount(w.stateDir(), unix.MNT_DETACH) })
	if w.place, err = stage.Enter(netns, filepath.Join(w.dir, "netns")); err != nil {
		return nil, err
	}
	s.atEnd(w.place.Leave)
	if err = w.place.BootFrom(w.bootFile()); err != nil {
		return nil, err
	}
	w.ec2 = newCable(netns, ec2At, s.lab.Front)
	w.imds = newCable(netns, imdsAt, metadata.New(metadata.Config{Cloud: s.lab.Cloud, InstanceID: instance}))
	if err = errors.Join(w.ec2.plug(), w.imds.plug()); err != nil {
		return nil, err
	}
	s.atEnd(func() error { return errors.Join(w.ec2.close(), w.imds.close()) })
	w.agent = &stage.Agent{
		Place: w.place, Netns: netns, Dir: w.dir, Bin: s.bin, Config: agentConfig,
		Env: []string{
			"AWS_REGION=us-west-2", "AWS_ENDPOINT_URL_EC2=http://" + ec2At.String(),
			"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + imdsAt.String(),
		},
		Died: w.died,
	}
	w.runtime = &stage.Runtime{Worker: name, Place: w.place, Wiring: s.wiring, Bin: s.bin, Socket: w.agent.Socket()}
	s.t.Cleanup(func() { w.powerOff() })
	return w, nil
}

func (w *node) stateDir() string { return filepath.Join(w.dir, "state") }
func (w *node) bootFile() string { return filepath.Join(w.dir, "boot_id") }

// newBoot gives the worker another boot ID.
func (w *node) newBoot() error {
	id := fmt.Sprintf("%08x-0000-4000-8000-%012x\n", rand.Uint32(), rand.Uint64()&0xffffffffffff)
	return os.WriteFile(w.bootFile(), []byte(id), 0o644)
}

func (w *node) note(format string, args ...any) { w.scene.note(w.name, format, args...) }

// powerOn starts the agent. again is a boot of a worker that was on before.
func (w *node) powerOn(again bool) error {
	w.power.Lock()
	defer w.power.Unlock()
	if again {
		if err := errors.Join(w.newBoot(), os.RemoveAll(filepath.Join(w.dir, "run"))); err != nil {
			return err
		}
	}
	if err := w.agent.Prepare(); err != nil {
		return err
	}
	w.mu.Lock()
	w.on, w.off = context.WithCancel(w.scene.ctx)
	w.mu.Unlock()
	return w.agent.Start()
}

// powerOff ends everything that the worker runs, at once, and with it its network namespaces.
func (w *node) powerOff() {
	w.power.Lock()
	defer w.power.Unlock()
	w.mu.Lock()
	off, live := w.off, w.live
	w.live = nil
	w.mu.Unlock()
	if off == nil {
		return
	}
	off() // the plugins
	w.agent.End(syscall.SIGKILL)
	for _, s := range live {
		w.scene.judge.Returned(s.Addr)
	}
	w.gc.Lock() // the kubelets have let go of their pods
	defer w.gc.Unlock()
	for _, s := range w.takeAll() {
		w.scene.judge.Returned(s.Addr)
	}
	files, err := os.ReadDir(w.place.Pods)
	if err != nil {
		w.scene.fail("%v", err)
	}
	for _, f := range files {
		if err := w.place.Remove(f.Name()); err != nil {
			w.scene.fail("%v", err)
		}
	}
}

func (w *node) powered() context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.on
}

// died is told of an agent that ended by itself. On a full disk that is in order, and the kubelet starts it again.
func (w *node) died(err error) {
	w.mu.Lock()
	full, on := w.full, w.on
	w.mu.Unlock()
	if !full {
		w.scene.fail("%s: %v", w.name, err)
		return
	}
	w.note("the agent ended on a full disk: %v", err)
	const backOff = 300 * time.Millisecond
	if w.scene.pause(on, backOff) {
		w.startAgent(on)
	}
}

// startAgent begins another life, unless the power has gone.
func (w *node) startAgent(on context.Context) {
	w.power.Lock()
	defer w.power.Unlock()
	if on.Err() != nil {
		return
	}
	if err := w.agent.Start(); err != nil {
		w.scene.fail("%s: %v", w.name, err)
	}
}

// endAgent ends the current life. It reports whether there was one.
func (w *node) endAgent(sig syscall.Signal) bool {
	w.power.Lock()
	defer w.power.Unlock()
	w.agent.Signal(syscall.SIGCONT) // one that is stopped would not hear
	return w.agent.End(sig)
}

// busy reports whether a request of the worker is in flight.
func (w *node) busy() bool {
	return len(w.runtime.InFlight()) > 0 || w.ec2.open.Load() > 0
}

// pool is the ENI for pods in the agent's words.
func (w *node) pool(s *agentapi.Status) agentapi.ENIStatus {
	for _, e := range s.ENIs {
		if string(e.ID) == w.eni {
			return e
		}
	}
	return agentapi.ENIStatus{}
}

// inEC2 is what the ENI for pods holds beside its primary address, in order.
func (w *node) inEC2() []netip.Addr {
	e, _ := w.scene.lab.Cloud.View(time.Now()).ENI(w.eni)
	addrs := slices.DeleteFunc(e.Addresses(), func(a netip.Addr) bool { return a == e.Primary })
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

func (w *node) livePods() []*stage.Sandbox {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.live)
}

func (w *node) takeAll() []*stage.Sandbox {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.live
	w.live = nil
	return all
}

// takeLive picks a pod that runs, and takes it off the list: it is the caller's to end.
func (w *node) takeLive(rng *rand.Rand) *stage.Sandbox {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.live) == 0 {
		return nil
	}
	i := rng.IntN(len(w.live))
	s := w.live[i]
	w.live = slices.Delete(w.live, i, i+1)
	return s
}
