// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// answerTimeout is how long an answer of the agent is waited for, and an agent that restarts: a claim takes up to 5 s for the old
// owner to give an address back and up to 15 s in all there. Then the syncer asks again.
const answerTimeout = 30 * time.Second

// perCall is how many addresses the agent takes at once, and from one network namespace in all.
const perCall = 16

// bySocket asks the node agent, which decides what this pod may have, by the agent's own configuration. Make it with [newBySocket].
type bySocket struct {
	client agentapi.Client
	lines  chan struct{} // has a value for each call under way: the agent refuses more than so many of one pod
}

func newBySocket(c agentapi.Client) bySocket {
	return bySocket{c, make(chan struct{}, agentapi.DefaultPerNamespace)}
}

// Register implements [podsync.Registrar].
func (s bySocket) Register(ctx context.Context, i attachment.Interface, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]podsync.Result {
	results := map[netip.Addr]podsync.Result{}
	err := s.each(ctx, agentapi.MethodClaim, i, addrs, conflict, func(r agentapi.Result) {
		result := podsync.Result{New: r.New}
		if r.Error != nil {
			result.Err = meaning(r.Error)
		}
		results[r.Addr] = result
	})
	for _, a := range addrs {
		if _, answered := results[a]; !answered {
			results[a] = podsync.Result{Err: err}
		}
	}
	return results
}

// Release implements [podsync.Registrar].
func (s bySocket) Release(ctx context.Context, i attachment.Interface, addrs []netip.Addr) error {
	for part := range slices.Chunk(addrs, perCall) {
		if _, err := s.call(ctx, agentapi.MethodYield, i, part, ""); err != nil {
			return fmt.Errorf("have the agent give back %v: %w", part, err)
		}
	}
	return nil
}

// standingOf are the standings by their words on the wire.
var standingOf = map[string]attachment.Standing{
	agentapi.StandingNobody: attachment.Nobody, agentapi.StandingHere: attachment.Here, agentapi.StandingElsewhere: attachment.Elsewhere,
}

// Standing implements [podsync.Registrar].
func (s bySocket) Standing(ctx context.Context, i attachment.Interface, addrs []netip.Addr) (map[netip.Addr]attachment.Standing, error) {
	standings := map[netip.Addr]attachment.Standing{}
	var unknown error
	err := s.each(ctx, agentapi.MethodStanding, i, addrs, "", func(r agentapi.Result) {
		standing, known := standingOf[r.Standing]
		if !known {
			unknown = fmt.Errorf("the agent says that %s is %q, which this version does not know", r.Addr, r.Standing)
		}
		standings[r.Addr] = standing
	})
	if err == nil {
		err = unknown
	}
	if err != nil {
		return nil, err
	}
	return standings, nil
}

var errNoAnswer = errors.New("the agent has no answer for it")

// each calls take with what the agent answers for each of the addresses; an error unless it answered for all of them.
func (s bySocket) each(ctx context.Context, method agentapi.Method, i attachment.Interface, addrs []netip.Addr, conflict attachment.OnConflict, take func(agentapi.Result)) error {
	for part := range slices.Chunk(addrs, perCall) {
		resp, err := s.call(ctx, method, i, part, conflict)
		if err != nil {
			return err
		}
		if len(resp.Results) != len(part) {
			return errNoAnswer
		}
		for _, r := range resp.Results {
			take(r)
		}
	}
	return nil
}

func (s bySocket) call(ctx context.Context, method agentapi.Method, i attachment.Interface, addrs []netip.Addr, conflict attachment.OnConflict) (agentapi.Response, error) {
	req := agentapi.Request{Method: method, Interface: i.Name, OnConflict: conflict}
	for _, a := range addrs {
		req.Addresses = append(req.Addresses, netip.PrefixFrom(a, a.BitLen()))
	}
	select {
	case s.lines <- struct{}{}:
		defer func() { <-s.lines }()
	case <-ctx.Done():
		return agentapi.Response{}, context.Cause(ctx)
	}
	resp, err := s.client.Call(ctx, req)
	if e, ok := errors.AsType[*agentapi.Error](err); ok {
		err = meaning(e)
	}
	return resp, err
}

// answered is an error of the agent as the syncer understands it.
type answered struct {
	err  *agentapi.Error
	kind error // nil: to be tried again
}

func (a answered) Error() string { return a.err.Error() }

func (a answered) Unwrap() error { return a.kind }

func meaning(e *agentapi.Error) error {
	switch e.Code {
	case agentapi.CodeInvalidConfig, agentapi.CodeDecode, agentapi.CodeVersion:
		return answered{e, podsync.ErrRefused}
	case agentapi.CodeContested:
		return answered{e, podsync.ErrContested}
	}
	return answered{e, nil}
}
