// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/pool"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// overlayInterfaces takes over what the file says of the worker's ENIs. Without interfaces the agent makes none.
func (o *options) overlayInterfaces(f fileConfig) (wrong []error) {
	if len(f.Interfaces) == 0 || string(f.Interfaces) == "null" {
		if f.Owner != "" {
			wrong = append(wrong, errors.New("owner: only stands with interfaces"))
		}
		if len(f.Tags) > 0 {
			wrong = append(wrong, errors.New("tags: only stand with interfaces"))
		}
		return wrong
	}
	// Whoever else attaches ENIs, as the Amazon VPC CNI does, is at work already: what it takes first is left to it.
	all, errs := workereni.ParseInterfaces(f.Interfaces, workereni.Interface{
		Addressing: workereni.DHCP, Last: true, SourceDestCheck: true, DeleteOnTermination: true,
	})
	for _, err := range errs {
		wrong = append(wrong, fmt.Errorf("interfaces: %w", err))
	}
	for i, n := range all {
		if !n.DeleteOnTermination {
			wrong = append(wrong, fmt.Errorf("interfaces[%d].deleteOnTermination: must be true, for when the worker ends there is no agent to delete the ENI", i))
		}
	}
	o.interfaces = workereni.Config{Owner: f.Owner, Tags: f.Tags, Interfaces: all}
	if len(errs) > 0 {
		return wrong // or the numbers of the others would be wrong
	}
	if invalid, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](o.interfaces.Validate()); ok {
		wrong = append(wrong, invalid.Unwrap()...)
	}
	return wrong
}

// worker is the node, and by configuration who gives it its ENIs, and how many it is to have.
type worker struct {
	*pool.Node
	keeper *workereni.Keeper                           // nil without interfaces in the configuration
	await  int                                         // ENIs for pods
	unveil func(context.Context) (had bool, err error) // removes the startup taint; nil without a Kubernetes API that knows the node
	events *herald
}

// Status is the node's, with what is in the way of its ENIs.
func (w *worker) Status() pool.Status {
	s := w.Node.Status()
	if missing := w.missing(s); missing != "" {
		s.Problems = append(s.Problems, missing)
	}
	return s
}

// missing words which ENIs the worker lacks; empty when it lacks none.
func (w *worker) missing(s pool.Status) string {
	if w.keeper != nil && w.keeper.Problem() != "" {
		return wordUnmade(w.keeper.Problem())
	}
	has := 0
	for _, e := range s.ENIs {
		if e.Managed {
			has++
		}
	}
	if has < w.await {
		return wordAwaited(has, w.await)
	}
	return ""
}

func wordUnmade(why string) string {
	return fmt.Sprintf("the worker does not have all ENIs of the configuration's interfaces: %s", why)
}

func wordAwaited(has, await int) string {
	return fmt.Sprintf("the worker has %d ENIs for pods, and awaitInterfaces of the configuration is %d", has, await)
}

// keep gives the worker its ENIs, if the configuration has any, and sweeps until ctx ends.
func (w *worker) keep(ctx context.Context) error {
	if w.keeper != nil {
		w.keeper.Run(ctx)
	}
	return nil
}

// settled waits until the worker has its ENIs and the node knows them. False when ctx ended first.
func (w *worker) settled(ctx context.Context) bool {
	var made []eni.ID
	if w.keeper != nil {
		select {
		case <-w.keeper.Placed():
		case <-ctx.Done():
			return false
		}
		made = w.keeper.ENIs()
	}
	select {
	case <-w.Ready():
	case <-ctx.Done():
		return false
	}
	// The kernel tells of a new link, but its driver may come late, or the ENI have been in place before the node looked.
	const lookInterval = 10 * time.Second
	tick := time.NewTicker(lookInterval / 10)
	defer tick.Stop()
	for n := 0; !w.knows(made); n++ {
		if n%10 == 0 {
			w.LinksChanged()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// knows reports whether the node knows the ENIs that were made, and lacks none.
func (w *worker) knows(made []eni.ID) bool {
	s := w.Node.Status()
	unknown := slices.ContainsFunc(made, func(id eni.ID) bool {
		return !slices.ContainsFunc(s.ENIs, func(e pool.ENIStatus) bool { return e.ENI.ID == id })
	})
	return !unknown && w.missing(s) == ""
}
