// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// handler answers the plugins' requests out of the pool.
type handler struct {
	node    *pool.Node
	version string
}

// Handle implements [agentapi.Handler].
func (h handler) Handle(ctx context.Context, req agentapi.Request) agentapi.Response {
	if err := complete(req); err != nil {
		return failed(err)
	}
	switch req.Method {
	case agentapi.MethodAdd:
		got, err := h.node.Add(ctx, *req.Attachment, *req.Query)
		if err != nil {
			return failed(err)
		}
		return agentapi.Response{Add: reply(got), Receipt: got}
	case agentapi.MethodENI:
		got, err := h.node.Resolve(ctx, *req.Query)
		if err != nil {
			return failed(err)
		}
		return agentapi.Response{Add: reply(got)}
	case agentapi.MethodDel:
		return failed(h.node.Del(req.Attachment.Key))
	case agentapi.MethodCheck:
		return failed(h.node.Check(req.Attachment.Key, req.Addresses))
	default: // status, or complete would have said no
		s := status(h.node.Status())
		s.AgentVersion = h.version
		return agentapi.Response{Status: s}
	}
}

// Undelivered implements [agentapi.Handler].
func (h handler) Undelivered(req agentapi.Request, resp agentapi.Response) {
	if got, ok := resp.Receipt.(pool.Allocation); ok {
		h.node.Undelivered(req.Attachment.Key, got)
	}
}

// complete reports what a request of its method lacks.
func complete(req agentapi.Request) error {
	var attached, asks bool
	switch req.Method {
	case agentapi.MethodAdd:
		attached, asks = true, true
	case agentapi.MethodENI:
		asks = true
	case agentapi.MethodDel, agentapi.MethodCheck:
		attached = true
	case agentapi.MethodStatus:
	default:
		return &agentapi.Error{Code: agentapi.CodeVersion, Message: fmt.Sprintf("method %q is unknown to this agent; upgrade the agent", req.Method)}
	}
	if attached && (req.Attachment == nil || req.Attachment.ContainerID == "" || req.Attachment.IfName == "") {
		return &agentapi.Error{Code: agentapi.CodeDecode, Message: fmt.Sprintf("request %q needs an attachment with containerID and ifName", req.Method)}
	}
	if !asks {
		return nil
	}
	if req.Query == nil {
		return &agentapi.Error{Code: agentapi.CodeDecode, Message: fmt.Sprintf("request %q needs a query", req.Method)}
	}
	return supported(*req.Query)
}

// supported refuses what this version of the agent cannot do, so that a newer plugin does not get something else.
func supported(q attachment.Query) error {
	for i, f := range q.Families {
		if f != attachment.IPv4 {
			return &agentapi.Error{Code: agentapi.CodeUnsupportedField, Message: fmt.Sprintf("families[%d] %q is not supported by this agent; use [\"ipv4\"]", i, f)}
		}
	}
	if q.Source != "" && q.Source != attachment.SourceReservation {
		return &agentapi.Error{Code: agentapi.CodeUnsupportedField, Message: fmt.Sprintf("source %q is not supported by this agent; use %q", q.Source, attachment.SourceReservation)}
	}
	unsupported := map[string]bool{
		"reservationTags": len(q.ReservationTags) > 0, "ranges": len(q.Ranges) > 0, "exclude": len(q.Exclude) > 0,
		"addresses": len(q.Requested) > 0, "sticky": q.Sticky != nil,
	}
	for _, key := range slices.Sorted(maps.Keys(unsupported)) {
		if unsupported[key] {
			return &agentapi.Error{Code: agentapi.CodeUnsupportedField, Message: fmt.Sprintf("%s is not supported by this agent; upgrade the agent", key)}
		}
	}
	return nil
}

var codes = map[pool.Reason]uint{
	pool.Invalid:    agentapi.CodeInvalidConfig,
	pool.Exhausted:  agentapi.CodeTryAgainLater,
	pool.NotReady:   agentapi.CodeTryAgainLater,
	pool.MasterMode: agentapi.CodeMasterMode,
	pool.Mismatch:   agentapi.CodeCheckFailed,
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
		out.ENIs = append(out.ENIs, es)
	}
	for _, h := range s.Holds {
		out.Attachments = append(out.Attachments, agentapi.HoldStatus{
			Attachment: h.Attachment, ENI: h.ENI, Addresses: h.Addresses, State: h.State.String(), NetnsVisible: h.Visible,
		})
	}
	return out
}
