// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package ipam is what the two plugins share: how a CNI call becomes a request to the node's agent, and the answer a CNI
// result or error. vpcipam is little more than this; vpcipvlan runs it in its own process instead of starting vpcipam.
// It is part of the doors: it wires hands together and has no rules of its own. Links do not belong here.
package ipam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/tombstone"
)

const (
	// delPatience and delTimeout keep a DEL short while the agent is away: a node that drains deletes its pods one
	// after the other, and a tombstone serves as well.
	delPatience, delTimeout = time.Second, 5 * time.Second
	// statusPatience and statusTimeout keep STATUS cheap; runtimes ask every few seconds.
	statusPatience, statusTimeout = 500 * time.Millisecond, 5 * time.Second
	// gcTimeout leaves the agent time to look at the namespaces of all attachments of the largest node.
	gcTimeout = 30 * time.Second
)

// Agent is the agent of this node.
type Agent struct {
	Socket string
	// Timeout of ADD and CHECK; the other calls have their own.
	Timeout time.Duration
	// Stderr is told of what a DEL could not do and left to the agent.
	Stderr io.Writer
	line   *agentapi.Line
}

// Connect is the agent with a connection for the first request, so that it wakes up while the caller finds out what to
// ask. The caller hangs up at the end.
func (g Agent) Connect(ctx context.Context) Agent {
	g.line = g.client().Connect(ctx)
	return g
}

// Hangup closes a connection that no request has used.
func (g Agent) Hangup() { g.line.Close() }

// Add allocates addresses for the attachment.
func (g Agent) Add(ctx context.Context, a attachment.Attachment, q attachment.Query) (agentapi.AddReply, error) {
	resp, err := g.client().Call(ctx, agentapi.Request{Method: agentapi.MethodAdd, Attachment: &a, Query: &q})
	return needed(resp, err)
}

// Resolve finds the ENI that the query means, allocating nothing.
func (g Agent) Resolve(ctx context.Context, a attachment.Attachment, q attachment.Query) (agentapi.AddReply, error) {
	resp, err := g.client().Call(ctx, agentapi.Request{Method: agentapi.MethodENI, Attachment: &a, Query: &q})
	return needed(resp, err)
}

// needed makes an answer out of a response to add or eni.
func needed(resp agentapi.Response, err error) (agentapi.AddReply, error) {
	switch {
	case err != nil:
		return agentapi.AddReply{}, err
	case resp.Add == nil:
		return agentapi.AddReply{}, &agentapi.Error{Code: agentapi.CodeInternal, Message: "the agent's response has no answer"}
	}
	return *resp.Add, nil
}

// Check has the agent compare what the attachment holds. The reply is nil when the agent says no more than that all is
// well.
func (g Agent) Check(ctx context.Context, a attachment.Attachment, want []Address) (*agentapi.AddReply, error) {
	resp, err := g.client().Call(ctx, agentapi.Request{Method: agentapi.MethodCheck, Attachment: &a, Addresses: prefixes(want)})
	return resp.Add, err
}

// Register has the agent tell EC2 of addresses that another IPAM plugin gave the attachment. The answer's addresses are
// those, on the ENI that holds them now.
func (g Agent) Register(ctx context.Context, a attachment.Attachment, q attachment.Query, addresses []Address, conflict attachment.OnConflict) (agentapi.AddReply, error) {
	resp, err := g.client().Call(ctx, agentapi.Request{
		Method: agentapi.MethodRegister, Attachment: &a, Query: &q, Addresses: prefixes(addresses), OnConflict: conflict,
	})
	return needed(resp, err)
}

// Ready is nil when an ADD for the query can be served. An agent that is too old to say counts as ready when it answers.
func (g Agent) Ready(ctx context.Context, q attachment.Query) error {
	short := agentapi.Client{Socket: g.Socket, Timeout: statusTimeout, Patience: statusPatience}
	_, err := short.Call(ctx, agentapi.Request{Method: agentapi.MethodReady, Query: &q})
	if tooOld(err) {
		_, err = short.Call(ctx, agentapi.Request{Method: agentapi.MethodStatus})
	}
	return unready(err)
}

// Reachable is nil when the query means an ENI, for addresses that come from elsewhere.
func (g Agent) Reachable(ctx context.Context, q attachment.Query) error {
	short := agentapi.Client{Socket: g.Socket, Timeout: statusTimeout, Patience: statusPatience}
	_, err := short.Call(ctx, agentapi.Request{Method: agentapi.MethodENI, Query: &q})
	return unready(err)
}

// unready words a failure for STATUS, whose codes are its own: what may pass by itself is "not available".
// https://github.com/containernetworking/cni/blob/main/SPEC.md#status-check-plugin-status
func unready(err error) error {
	if err == nil {
		return nil
	}
	e := *agentapi.AsError(err)
	if e.Code == agentapi.CodeTryAgainLater || e.Code == agentapi.CodeIO {
		e.Code = agentapi.CodeNotAvailable
	}
	return &e
}

// GC has the agent release what the network's attachments hold, but for those that are valid. An agent that is too old
// for that does the same by itself, when the attachments' namespaces are gone.
func (g Agent) GC(ctx context.Context, network string, valid []attachment.Key) error {
	client := agentapi.Client{Socket: g.Socket, Timeout: gcTimeout, Patience: delPatience}
	_, err := client.Call(ctx, agentapi.Request{Method: agentapi.MethodGC, Network: network, Valid: valid})
	if tooOld(err) {
		g.say("collect garbage of network %s: %v; it does so by itself when network namespaces are gone", network, err)
		return nil
	}
	return err
}

// tooOld is what an agent answers to a method that it does not know.
func tooOld(err error) bool {
	e, answered := errors.AsType[*agentapi.Error](err)
	return answered && e.Code == agentapi.CodeVersion
}

// Release gives back what the attachment holds. It cannot fail: when the agent does not take it, a tombstone tells the
// next one.
func (g Agent) Release(ctx context.Context, a attachment.Attachment) {
	short := agentapi.Client{Socket: g.Socket, Timeout: delTimeout, Patience: delPatience, Ahead: g.line}
	_, err := short.Call(ctx, agentapi.Request{Method: agentapi.MethodDel, Attachment: &a})
	if err == nil {
		return
	}
	g.say("release %s: %v; leaving word for the agent", a.Key, err)
	// Runtimes run the operations of one attachment one after the other, so no ADD that must last is before this moment.
	when, err := tombstone.Now()
	if err == nil {
		dir := tombstone.Dir(filepath.Join(filepath.Dir(g.Socket), agentapi.TombstoneDir))
		err = dir.Write(tombstone.Note{Key: a.Key, Network: a.Network, Moment: when})
	}
	if err != nil {
		g.say("leave word that %s was deleted: %v; the agent finds out when the network namespace is gone", a.Key, err)
	}
}

func (g Agent) client() agentapi.Client {
	return agentapi.Client{Socket: g.Socket, Timeout: g.Timeout, Ahead: g.line}
}

func (g Agent) say(format string, args ...any) {
	_, _ = fmt.Fprintf(g.Stderr, "multus-vpc: "+format+"\n", args...) // nobody is left to tell
}
