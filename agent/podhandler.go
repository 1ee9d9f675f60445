// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/guard"
)

// podHandler answers init containers and sidecars out of the pool, as far as the guard lets them.
type podHandler struct {
	guard   *guard.Guard
	metrics *metrics
}

// HandlePod implements [agentapi.PodHandler].
func (h podHandler) HandlePod(ctx context.Context, c agentapi.Caller, req agentapi.Request) agentapi.Response {
	began := time.Now()
	resp := h.answer(ctx, caller{c}, req)
	worst := resp.Error
	for _, r := range resp.Results {
		worst = cmp.Or(worst, r.Error)
	}
	h.metrics.request(req.Method, worst, time.Since(began))
	return resp
}

func (h podHandler) answer(ctx context.Context, c guard.Caller, req agentapi.Request) agentapi.Response {
	addrs := addresses(req.Addresses)
	lacks := func(what string) agentapi.Response {
		return failed(&agentapi.Error{Code: agentapi.CodeDecode, Message: fmt.Sprintf("request %q needs %s", req.Method, what)})
	}
	switch _, known := podMethods[req.Method]; {
	case !known:
		return failed(&agentapi.Error{Code: agentapi.CodeVersion, Message: fmt.Sprintf(
			"method %q is not served to pods by this agent; where a newer pod asks for it, upgrade the agent", req.Method)})
	case req.Interface == "":
		return lacks("an interface")
	case len(addrs) == 0:
		return lacks("addresses")
	}
	switch req.Method {
	case agentapi.MethodYield:
		return refused(h.guard.Yield(ctx, c, req.Interface, addrs))
	case agentapi.MethodStanding:
		return standings(h.guard.Standing(ctx, c, req.Interface, addrs))
	default: // claim
		return results(h.guard.Claim(ctx, c, req.Interface, addrs, req.OnConflict))
	}
}

// podMethods are those of the sync socket.
var podMethods = map[agentapi.Method]struct{}{agentapi.MethodClaim: {}, agentapi.MethodYield: {}, agentapi.MethodStanding: {}}

// refused words an error of the guard.
func refused(err error) agentapi.Response {
	if err == nil {
		return agentapi.Response{}
	}
	code := uint(agentapi.CodeTryAgainLater)
	switch {
	case errors.Is(err, guard.ErrRefused):
		code = agentapi.CodeInvalidConfig
	case errors.Is(err, guard.ErrContested):
		code = agentapi.CodeContested
	}
	return agentapi.Response{Error: &agentapi.Error{Code: code, Message: err.Error()}}
}

func results(got map[netip.Addr]guard.Result) (resp agentapi.Response) {
	for _, a := range slices.SortedFunc(maps.Keys(got), netip.Addr.Compare) {
		resp.Results = append(resp.Results, agentapi.Result{Addr: a, New: got[a].New, Error: refused(got[a].Err).Error})
	}
	return resp
}

// standingWords are the standings on the wire.
var standingWords = map[attachment.Standing]string{
	attachment.Nobody: agentapi.StandingNobody, attachment.Here: agentapi.StandingHere, attachment.Elsewhere: agentapi.StandingElsewhere,
}

func standings(got map[netip.Addr]attachment.Standing, err error) (resp agentapi.Response) {
	if err != nil {
		return refused(err)
	}
	for _, a := range slices.SortedFunc(maps.Keys(got), netip.Addr.Compare) {
		resp.Results = append(resp.Results, agentapi.Result{Addr: a, Standing: standingWords[got[a]]})
	}
	return resp
}
