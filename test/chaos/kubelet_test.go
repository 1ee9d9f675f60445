// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// Bounds of the load: so many kubelets' workers on each worker, which make pods up to a crowd. All crowds together are
// more than the reservation has addresses.
const (
	hands = 3
	crowd = 9
)

// kubelets works on the pods of a worker until ctx ends: several at the same time, one operation on a pod at a time.
func (w *node) kubelets(ctx context.Context, rng *rand.Rand) {
	var wg sync.WaitGroup
	for range hands {
		own := rand.New(rand.NewPCG(rng.Uint64(), 0))
		wg.Go(func() {
			for ctx.Err() == nil {
				w.operate(own)
				w.scene.pause(ctx, between(own, time.Millisecond, 60*time.Millisecond))
			}
		})
	}
	wg.Wait()
}

// operate does one thing that a kubelet does, and ends early when the power goes.
func (w *node) operate(rng *rand.Rand) {
	on := w.powered()
	if on.Err() != nil {
		return
	}
	const often = 100
	switch roll := rng.IntN(often); {
	case roll < 2:
		w.collectGarbage(on)
		return
	case roll < 10:
		w.gc.RLock()
		defer w.gc.RUnlock()
		w.check(on, rng)
	case roll < 45 || len(w.livePods()) >= crowd:
		w.gc.RLock()
		defer w.gc.RUnlock()
		if s := w.takeLive(rng); s != nil {
			w.remove(on, rng, s, ending(rng.IntN(int(numEndings))))
		}
	default:
		w.gc.RLock()
		defer w.gc.RUnlock()
		w.create(on, rng, w.runtime.PodName(), "")
	}
}

// config varies what may vary from call to call: how long a plugin has patience.
func (w *node) config(rng *rand.Rand) map[string]any {
	late := w.scene.weather.lags.IMDS // an address is there as soon as the metadata shows it
	patience := late.Truncate(time.Second) + time.Duration(pick(rng, 1, 3, 6, 10))*time.Second
	if rng.IntN(4) == 0 {
		patience = time.Second
	}
	config := w.runtime.Wiring.Config(w.agent.Socket())
	ipam, _ := config["ipam"].(map[string]any)
	ipam["timeout"] = patience.String()
	return map[string]any{"ipam": ipam, "cniVersion": "1.1.0"}
}

// create brings a pod up: a failed ADD is followed by DEL and a new sandbox.
func (w *node) create(ctx context.Context, rng *rand.Rand, podName, file string) {
	const attempts = 2
	for range attempts {
		if w.add(ctx, rng, podName, file) || ctx.Err() != nil {
			return
		}
	}
}

// add is one attempt.
func (w *node) add(ctx context.Context, rng *rand.Rand, podName, file string) bool {
	s, err := w.runtime.NewSandbox(podName, file)
	if err != nil {
		w.scene.fail("make a sandbox: %v", err)
		return false
	}
	began := time.Now()
	c, err := w.runtime.Exec(ctx, "ADD", s, w.config(rng))
	if err == nil {
		w.scene.tally.added(time.Since(began))
		w.adopt(ctx, s, c)
		return true
	}
	if ctx.Err() == nil {
		w.refused("ADD", c, err)
		w.delete(ctx, rng, s)
		w.bareAfterDel(ctx, s)
	}
	w.removeNetns(s)
	return false
}

// refused notes an error of a plugin. Only what an operator finds in the list of errors may be one.
func (w *node) refused(command string, c *stage.Call, err error) {
	if errors.Is(err, stage.ErrShot) {
		return
	}
	var said struct {
		Code uint   `json:"code"`
		Msg  string `json:"msg"`
	}
	if c == nil || json.Unmarshal(c.Stdout.Bytes(), &said) != nil || said.Code == 0 {
		w.scene.fail("%s: no CNI error: %v", w.name, err)
		return
	}
	w.scene.tally.refused(command, said.Code)
	w.note("%s refused: %d %s", command, said.Code, said.Msg)
}

// adopt takes in what ADD returned: the address is the pod's from now on.
func (w *node) adopt(ctx context.Context, s *stage.Sandbox, c *stage.Call) {
	r, err := stage.ParseResult(c.Stdout.Bytes())
	if err != nil {
		w.scene.fail("%v", err)
		return
	}
	s.Addr, s.Result = r.Addr.Addr(), c.Stdout.Bytes()
	w.note("%s has %s", s.ID, s.Addr)
	if !forPods(s.Addr) {
		w.scene.fail("ADD gave %s to %s on %s, which is not for pods", s.Addr, s.ID, w.name)
	}
	w.scene.judge.Given(ctx, stage.Carrier{Worker: w.name, Pod: s.Pod, ID: s.ID, ENI: w.eni}, w.dev, s.Addr, c.Ended)
	if attach := w.runtime.Wiring.Attach; attach != nil && ctx.Err() == nil {
		if err := attach(w.netns, s.Path, r); err != nil && ctx.Err() == nil {
			w.scene.fail("attach %s: %v", s.ID, err)
			return
		}
	}
	w.mu.Lock()
	w.live = append(w.live, s)
	w.mu.Unlock()
}

// ending is a way in which a pod ends.
type ending int

const (
	orderly   ending = iota // link removed, DEL, namespace removed
	delFirst                // DEL before the link is removed, as upstream ipvlan orders it
	twice                   // DEL, and DEL again
	netnsLost               // the namespace goes first, then DEL
	delLost                 // the namespace goes, and DEL never comes
	remade                  // the same, and at once another pod at the same path
	restarted               // orderly, and the same pod again
	numEndings
)

// remove ends a pod.
func (w *node) remove(ctx context.Context, rng *rand.Rand, s *stage.Sandbox, how ending) {
	w.note("%s (%s) ends, way %d", s.ID, s.Addr, how)
	if how != delFirst && how < netnsLost || how == restarted {
		w.detach(ctx, s)
	}
	w.scene.judge.Returned(s.Addr)
	if how >= netnsLost && how <= remade {
		w.removeNetns(s)
		switch how {
		case netnsLost:
			w.delete(ctx, rng, s)
		case remade:
			w.add(ctx, rng, w.runtime.PodName(), s.File)
		}
		return
	}
	w.delete(ctx, rng, s)
	if how == twice {
		w.delete(ctx, rng, s)
	}
	if how == delFirst {
		w.detach(ctx, s)
	}
	w.bareAfterDel(ctx, s)
	w.removeNetns(s)
	if how == restarted && ctx.Err() == nil {
		w.create(ctx, rng, s.Pod, "")
	}
}

// delete runs DEL until it has succeeded. It must at the first time, unless it is killed.
func (w *node) delete(ctx context.Context, rng *rand.Rand, s *stage.Sandbox) {
	for ctx.Err() == nil {
		_, err := w.runtime.Exec(ctx, "DEL", s, w.config(rng))
		if err == nil {
			w.scene.tally.count("DEL")
			return
		}
		if !errors.Is(err, stage.ErrShot) && ctx.Err() == nil {
			w.scene.fail("a DEL did not succeed: %v", err)
			return
		}
	}
}

// check runs CHECK on a pod. While there is chaos the agent may not be there to answer; a difference is never in order.
func (w *node) check(ctx context.Context, rng *rand.Rand) {
	s := w.takeLive(rng)
	if s == nil {
		return
	}
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.live = append(w.live, s)
	}()
	config := w.config(rng)
	config["prevResult"] = json.RawMessage(s.Result)
	c, err := w.runtime.Exec(ctx, "CHECK", s, config)
	if err == nil {
		w.scene.tally.count("CHECK")
		return
	}
	if ctx.Err() == nil {
		w.refused("CHECK", c, err)
	}
}

// collectGarbage runs GC with the attachments that there are. The runtime lets nothing else happen on the network
// meanwhile.
func (w *node) collectGarbage(ctx context.Context) {
	w.gc.Lock()
	defer w.gc.Unlock()
	if ctx.Err() != nil {
		return
	}
	valid := []map[string]string{}
	for _, s := range w.livePods() {
		valid = append(valid, map[string]string{"containerID": s.ID, "ifname": stage.IfName})
	}
	c, err := w.runtime.ExecAll(ctx, "GC", map[string]any{"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid})
	if err == nil {
		w.scene.tally.count("GC")
		return
	}
	if ctx.Err() == nil {
		w.refused("GC", c, err)
	}
}

func (w *node) detach(ctx context.Context, s *stage.Sandbox) {
	detach := w.runtime.Wiring.Detach
	if detach == nil || s.Gone {
		return
	}
	if err := detach(s.Path); err != nil && ctx.Err() == nil {
		w.scene.fail("detach %s: %v", s.ID, err)
	}
}

func (w *node) removeNetns(s *stage.Sandbox) {
	if err := w.runtime.RemoveNetns(s); err != nil {
		w.scene.fail("%v", err)
	}
}

// bareAfterDel demands that DEL left nothing of an interface in the namespace.
func (w *node) bareAfterDel(ctx context.Context, s *stage.Sandbox) {
	if s.Gone || ctx.Err() != nil {
		return
	}
	look, err := pod.LookAt(s.Path)
	if err != nil {
		w.scene.fail("%v", err)
		return
	}
	if len(look.Links) != 1 || len(look.Addresses)+len(look.Routes)+len(look.Rules) > 0 {
		w.scene.fail("%s after DEL: %+v, want lo alone", s.Path, look)
	}
}
