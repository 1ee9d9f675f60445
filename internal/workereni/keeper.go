// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

const (
	// attemptTime is how long one attempt of a keeper lasts, after which its reason is told and the next one goes on.
	attemptTime = 2 * time.Minute
	// hopeBase and hopeCap bound the pauses after what cannot be: a subnet may be extended, a permission be given.
	hopeBase = 30 * time.Second
	hopeCap  = 10 * time.Minute
	// orphanAge is how old a worker must have been for a keeper to sweep what it left.
	orphanAge = time.Hour
	// sweepInterval is the longest between two sweeps of a keeper, the shortest is half of it: each costs EC2 a read or two, and with every
	// worker there is one more who sweeps.
	sweepInterval = 24 * time.Hour
)

// Keeper gives the worker that it runs on its ENIs, where nobody does it while the worker launches, and sweeps what workers of the same owner
// left behind. Its methods may be called concurrently.
type Keeper struct {
	flow   *Flow
	worker eni.InstanceID
	used   spent // by Run alone
	placed chan struct{}

	mu      sync.Mutex
	problem string
	enis    []eni.ID
}

// NewKeeper makes a keeper for the worker, which does nothing until [Keeper.Run].
func NewKeeper(f *Flow, worker eni.InstanceID) *Keeper {
	return &Keeper{flow: f, worker: worker, used: spent{}, placed: make(chan struct{}), problem: "not all in place yet"}
}

// Run gives the worker its ENIs, and then sweeps now and then until ctx ends. What is in the way is logged, told by [Keeper.Problem], and tried
// again, for it may be lifted; only that the instance ends is final.
func (k *Keeper) Run(ctx context.Context) {
	if !k.place(ctx) {
		return
	}
	for {
		if pause(ctx, sweepInterval/2+rand.N(sweepInterval/2)) != nil {
			return
		}
		k.sweep(ctx)
	}
}

// Placed is closed when the worker has its ENIs.
func (k *Keeper) Placed() <-chan struct{} { return k.placed }

// Problem says why the worker does not have its ENIs; it is empty when it has.
func (k *Keeper) Problem() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.problem
}

// ENIs are those of the configuration, once they are in place.
func (k *Keeper) ENIs() []eni.ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.enis)
}

// place retries until the worker has its ENIs. False when it never will, or ctx ended first.
func (k *Keeper) place(ctx context.Context) bool {
	for hopeless := 0; ; {
		enis, err := k.try(ctx)
		if ctx.Err() != nil {
			return false
		}
		k.tell(enis, err)
		switch {
		case err == nil:
			close(k.placed)
			return true
		case errors.Is(err, ErrGone):
			return false
		case errors.Is(err, ErrUnfinished): // it has waited for long
			hopeless = 0
			continue
		}
		if pause(ctx, hopeBase/2+rand.N(min(hopeBase<<min(hopeless, 5), hopeCap))) != nil {
			return false
		}
		hopeless++
	}
}

func (k *Keeper) try(ctx context.Context) ([]eni.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	never := func(*ImpossibleError) bool { return false } // the worker is a node already
	return k.flow.launch(ctx, Request{Instance: k.worker, GiveUp: never}, k.used)
}

func (k *Keeper) tell(enis []eni.Device, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.problem = ""
		for _, d := range enis {
			k.enis = append(k.enis, d.ID)
		}
		k.flow.log.Info("the worker has its ENIs", "instance", k.worker)
		return
	}
	level := slog.LevelWarn
	if errors.Is(err, ErrImpossible) {
		level = slog.LevelError
	}
	k.problem = err.Error()
	k.flow.log.Log(context.Background(), level, "the worker does not have its ENIs", "instance", k.worker, "error", err)
}

// sweep deletes what no worker has any more. What failed is left to the next keeper that sweeps.
func (k *Keeper) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	found, err := k.flow.Sweep(ctx, orphanAge)
	for _, o := range found {
		if o.Err != nil {
			err = errors.Join(err, fmt.Errorf("delete %s: %w", o.ID, o.Err))
		}
	}
	if err != nil && ctx.Err() == nil {
		k.flow.log.Warn("ENIs of workers that are gone may be left", "error", err)
	}
}
