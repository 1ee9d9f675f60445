// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// handler answers the plugins' requests out of the pool.
type handler struct {
	node    *worker
	metrics *metrics
	version string
}

// Handle implements [agentapi.Handler].
func (h handler) Handle(ctx context.Context, req agentapi.Request) agentapi.Response {
	began := time.Now()
	resp := h.answer(ctx, req)
	h.metrics.request(req.Method, resp.Error, time.Since(began))
	return resp
}

func (h handler) answer(ctx context.Context, req agentapi.Request) agentapi.Response {
	if err := complete(req); err != nil {
		return failed(err)
	}
	switch req.Method {
	case agentapi.MethodAdd:
		return allocated(h.node.Add(ctx, *req.Attachment, *req.Query))
	case agentapi.MethodRegister:
		return allocated(h.node.Register(ctx, *req.Attachment, *req.Query, addresses(req.Addresses), req.OnConflict))
	case agentapi.MethodENI:
		got, err := h.node.Resolve(ctx, *req.Query)
		if err != nil {
			return failed(err)
		}
		return agentapi.Response{Add: reply(got)}
	case agentapi.MethodDel:
		return failed(h.node.Del(req.Attachment.Key))
	case agentapi.MethodCheck:
		if err := h.node.Check(req.Attachment.Key, req.Addresses); err != nil {
			return failed(err)
		}
		return placed(h.node.Place(req.Attachment.Key))
	case agentapi.MethodGC:
		return failed(h.node.GC(req.Network, req.Valid))
	case agentapi.MethodReady:
		return readiness(h.node.Readiness(*req.Query))
	default: // status, or complete would have said no
		s := status(h.node.Status())
		s.AgentVersion = h.version
		return agentapi.Response{Status: s}
	}
}

// allocated words what an attachment got, with what [handler.Undelivered] has to know of it.
func allocated(got pool.Allocation, err error) agentapi.Response {
	if err != nil {
		return failed(err)
	}
	return agentapi.Response{Add: reply(got), Receipt: got}
}

// placed is what CHECK compares the interface with: nothing while the ENI is not known, as until the agent has read it.
func placed(at pool.Allocation, known bool) agentapi.Response {
	if !known {
		return agentapi.Response{}
	}
	return agentapi.Response{Add: reply(at)}
}

// readiness words the answer to STATUS in its own codes.
func readiness(limited bool, err error) agentapi.Response {
	resp := failed(err)
	if resp.Error != nil {
		resp.Error.Code = agentapi.CodeNotAvailable
		if limited {
			resp.Error.Code = agentapi.CodeLimited
		}
	}
	return resp
}

func addresses(prefixes []netip.Prefix) []netip.Addr {
	addrs := make([]netip.Addr, len(prefixes))
	for i, p := range prefixes {
		addrs[i] = p.Addr()
	}
	return addrs
}

// Undelivered implements [agentapi.Handler].
func (h handler) Undelivered(req agentapi.Request, resp agentapi.Response) {
	if got, ok := resp.Receipt.(pool.Allocation); ok {
		h.node.Undelivered(req.Attachment.Key, got)
	}
}

// needs says which parts of a request a method needs.
type needs struct{ attachment, query, addresses, network bool }

var methods = map[agentapi.Method]needs{
	agentapi.MethodAdd:      {attachment: true, query: true},
	agentapi.MethodRegister: {attachment: true, query: true, addresses: true},
	agentapi.MethodENI:      {query: true},
	agentapi.MethodDel:      {attachment: true},
	agentapi.MethodCheck:    {attachment: true},
	agentapi.MethodGC:       {network: true},
	agentapi.MethodReady:    {query: true},
	agentapi.MethodStatus:   {},
}

// complete reports what a request of its method lacks.
func complete(req agentapi.Request) error {
	need, known := methods[req.Method]
	lacks := func(what string) error {
		return &agentapi.Error{Code: agentapi.CodeDecode, Message: fmt.Sprintf("request %q needs %s", req.Method, what)}
	}
	switch {
	case !known:
		return &agentapi.Error{Code: agentapi.CodeVersion, Message: fmt.Sprintf("method %q is unknown to this agent; upgrade the agent", req.Method)}
	case need.attachment && (req.Attachment == nil || req.Attachment.ContainerID == "" || req.Attachment.IfName == ""):
		return lacks("an attachment with containerID and ifName")
	case need.query && req.Query == nil:
		return lacks("a query")
	case need.addresses && len(req.Addresses) == 0:
		return lacks("addresses")
	case need.network && req.Network == "":
		return lacks("a network")
	case need.query:
		return supported(*req.Query)
	}
	return nil
}

// supported refuses what this version of the agent cannot do, so that a newer plugin does not get something else.
func supported(q attachment.Query) error {
	for i, f := range q.Families {
		if f != attachment.IPv4 && f != attachment.IPv6 || slices.Index(q.Families, f) != i {
			return &agentapi.Error{Code: agentapi.CodeUnsupportedField, Message: fmt.Sprintf("families[%d] %q is not supported by this agent; use \"ipv4\", \"ipv6\" or both", i, f)}
		}
	}
	sources := []string{"", attachment.SourceReservation, attachment.SourcePrefix, attachment.SourceSubnet}
	if !slices.Contains(sources, q.Source) {
		return &agentapi.Error{Code: agentapi.CodeUnsupportedField, Message: fmt.Sprintf("source %q is not supported by this agent; use one of %q", q.Source, sources[1:])}
	}
	return nil
}

var codes = map[pool.Reason]uint{
	pool.Invalid:    agentapi.CodeInvalidConfig,
	pool.Exhausted:  agentapi.CodeTryAgainLater,
	pool.NotReady:   agentapi.CodeTryAgainLater,
	pool.MasterMode: agentapi.CodeMasterMode,
	pool.Mismatch:   agentapi.CodeCheckFailed,
	pool.Taken:      agentapi.CodeContested,
}

// failed words an error, or an empty response for none.
func failed(err error) agentapi.Response {
	if err == nil {
		return agentapi.Response{}
	}
	if e, ok := errors.AsType[*agentapi.Error](err); ok {
		return agentapi.Response{Error: e}
	}
	if r, ok := errors.AsType[*pool.Refusal](err); ok {
		return agentapi.Response{Error: &agentapi.Error{Code: codes[r.Reason], Message: r.Text}}
	}
	return agentapi.Response{Error: &agentapi.Error{Code: agentapi.CodeIO, Message: err.Error()}}
}

func reply(got pool.Allocation) *agentapi.AddReply {
	return &agentapi.AddReply{
		ENI: agentapi.ENI{
			ID: got.ENI.ID, MAC: got.ENI.MAC, NetworkCard: got.ENI.NetworkCard, DeviceIndex: got.ENI.DeviceIndex,
			SubnetID: got.Subnet.ID, SubnetIPv4: got.Subnet.IPv4, SubnetIPv6: got.Subnet.IPv6, Link: got.Link,
		},
		Addresses: got.Addresses,
	}
}

func status(s pool.Status) *agentapi.Status {
	out := &agentapi.Status{
		InstanceID: s.Instance.ID, InstanceType: s.Instance.Type, AZ: s.Instance.AZ, Problems: s.Problems,
		ENIs: []agentapi.ENIStatus{}, Attachments: []agentapi.HoldStatus{},
	}
	for _, e := range s.ENIs {
		es := agentapi.ENIStatus{
			ENI:     reply(pool.Allocation{ENI: e.ENI, Subnet: e.Subnet, Link: e.Link}).ENI,
			Managed: e.Managed, Active: e.Active, Slots: e.Slots,
		}
		for _, a := range e.Addresses {
			as := agentapi.AddressStatus{Addr: a.Addr, State: a.State.String()}
			if a.Holder != (attachment.Key{}) {
				as.Holder = a.Holder.String()
			}
			es.Addresses = append(es.Addresses, as)
		}
		for _, p := range e.Prefixes {
			es.Prefixes = append(es.Prefixes, agentapi.PrefixStatus{Prefix: p.Prefix, State: p.State.String(), Used: p.Used})
		}
		out.ENIs = append(out.ENIs, es)
	}
	for _, h := range s.Holds {
		out.Attachments = append(out.Attachments, agentapi.HoldStatus{
			Attachment: h.Attachment, ENI: h.ENI, Addresses: h.Addresses, State: h.State.String(), NetnsVisible: h.Visible,
		})
	}
	return out
}
