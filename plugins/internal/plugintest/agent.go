// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package plugintest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// agentMain is a small agent with one ENI: 10.10.1.64/26 of 10.10.1.0/24, and 2001:db8:1::70 and on of 2001:db8:1::/64. It
// hands out addresses in order, or those that are requested, the same again to the same attachment. After every request
// it writes what it holds to one file and what it was last asked for to another. It refuses requests that a correct
// plugin never sends.
func agentMain(args []string, stderr io.Writer) int {
	fs := flag.NewFlagSet("fakeagent", flag.ContinueOnError)
	socket := fs.String("socket", os.Getenv("SOCK"), "where to listen")
	a := &agent{
		next: map[string]netip.Prefix{
			attachment.IPv4: netip.MustParsePrefix("10.10.1.70/24"), attachment.IPv6: netip.MustParsePrefix("2001:db8:1::70/64"),
		},
		held: map[attachment.Key]hold{},
	}
	fs.StringVar(&a.file, "holds", os.Getenv("HOLDS"), "where to write what is held; what is asked for goes beside it, to …asked")
	fs.StringVar(&a.link, "link", "", "name of the ENI's link")
	fs.StringVar(&a.refusal, "refuse", "", "answer every add and register with this message, code 11")
	fs.UintVar(&a.unready, "unready", 0, "answer ready with this code")
	fs.BoolVar(&a.old, "old", false, "know nothing of register, ready and gc")
	version := fs.Int("version", agentapi.Version, "protocol version")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if err := a.serve(*socket, *version); err != nil {
		_, _ = fmt.Fprintln(stderr, "fakeagent:", err)
		return 1
	}
	return 0
}

func (a *agent) serve(socket string, version int) error {
	if err := a.save(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := agentapi.Listen(socket)
	if err != nil {
		return err
	}
	return (&agentapi.Server{Version: version}).Serve(ctx, ln, a)
}

type agent struct {
	file, link, refusal string
	unready             uint
	old                 bool

	mu   sync.Mutex
	next map[string]netip.Prefix // by family
	held map[attachment.Key]hold
}

// hold is what an attachment has.
type hold struct {
	network   string
	addresses []netip.Prefix
}

// Handle implements [agentapi.Handler].
func (a *agent) Handle(_ context.Context, req agentapi.Request) agentapi.Response {
	a.mu.Lock()
	defer a.mu.Unlock()
	resp, err := a.handle(req)
	if saveErr := errors.Join(a.save(), a.note(req)); err == nil {
		err = saveErr
	}
	if err != nil {
		return agentapi.Response{Error: agentapi.AsError(err)}
	}
	return resp
}

func (a *agent) handle(req agentapi.Request) (agentapi.Response, error) {
	refuse := func(code uint, format string, args ...any) (agentapi.Response, error) {
		return agentapi.Response{}, &agentapi.Error{Code: code, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case a.old && slices.Contains([]agentapi.Method{agentapi.MethodRegister, agentapi.MethodReady, agentapi.MethodGC}, req.Method):
		return refuse(agentapi.CodeVersion, "method %q is unknown to this agent", req.Method)
	case req.Method == agentapi.MethodReady && a.unready != 0:
		return refuse(a.unready, "the pool is empty")
	}
	switch req.Method {
	case agentapi.MethodAdd, agentapi.MethodRegister:
		return a.add(req)
	case agentapi.MethodDel:
		delete(a.held, req.Attachment.Key)
	case agentapi.MethodCheck:
		if held := a.held[req.Attachment.Key].addresses; !slices.Equal(req.Addresses, held) {
			return refuse(agentapi.CodeCheckFailed, "holds %s, not %v", held, req.Addresses)
		}
	case agentapi.MethodENI, agentapi.MethodReady:
		reply, err := a.reply(req)
		return agentapi.Response{Add: &reply}, err
	case agentapi.MethodGC:
		if req.Network == "" {
			return refuse(agentapi.CodeDecode, "gc of no network")
		}
		maps.DeleteFunc(a.held, func(k attachment.Key, h hold) bool {
			return h.network == req.Network && !slices.Contains(req.Valid, k)
		})
	}
	return agentapi.Response{}, nil
}

func (a *agent) add(req agentapi.Request) (agentapi.Response, error) {
	at := req.Attachment
	if at == nil || at.ContainerID == "" || at.IfName == "" || at.Network == "" || at.Netns.Path == "" || at.Netns.Cookie == 0 ||
		at.Pod != (attachment.Pod{Namespace: "ns1", Name: "amf-0", UID: "u1"}) || req.TimeoutMillis == 0 || req.Query == nil {
		return agentapi.Response{}, fmt.Errorf("fakeagent: the request lacks something: %+v", req)
	}
	if a.refusal != "" {
		return agentapi.Response{}, &agentapi.Error{Code: agentapi.CodeTryAgainLater, Message: a.refusal}
	}
	reply, err := a.reply(req)
	if err != nil {
		return agentapi.Response{}, err
	}
	h, ok := a.held[at.Key]
	if !ok {
		h = hold{at.Network, req.Addresses}
		if req.Method == agentapi.MethodAdd {
			h.addresses = a.choose(*req.Query)
		}
		a.held[at.Key] = h
	}
	reply.Addresses = h.addresses
	return agentapi.Response{Add: &reply}, nil
}

// choose takes the addresses that are asked for, or the next of each family.
func (a *agent) choose(q attachment.Query) (chosen []netip.Prefix) {
	for i, family := range q.Families {
		next := a.next[family]
		if len(q.Requested) > 0 {
			chosen = append(chosen, netip.PrefixFrom(q.Requested[i], next.Bits()))
			continue
		}
		chosen = append(chosen, next)
		a.next[family] = netip.PrefixFrom(next.Addr().Next(), next.Bits())
	}
	return chosen
}

// reply is the ENI; it must be what the query selects.
func (a *agent) reply(req agentapi.Request) (agentapi.AddReply, error) {
	e := agentapi.ENI{
		ID: "eni-1", MAC: "0a:00:00:00:00:01", DeviceIndex: 1,
		SubnetID: "subnet-1", SubnetIPv4: netip.MustParsePrefix("10.10.1.0/24"),
		SubnetIPv6: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")},
	}
	if a.link != "" {
		l, err := net.InterfaceByName(a.link)
		if err != nil {
			return agentapi.AddReply{}, err
		}
		e.MAC = eni.ParseMAC(l.HardwareAddr.String())
		e.Link = attachment.Link{Name: l.Name, Index: l.Index, MTU: l.MTU, MAC: e.MAC, Up: l.Flags&net.FlagUp != 0}
	}
	selects := req.Query.Selector.Matches(eni.Interface{MAC: e.MAC, DeviceIndex: 1, SubnetID: e.SubnetID}, eni.Subnet{})
	if !selects {
		return agentapi.AddReply{}, &agentapi.Error{
			Code: agentapi.CodeInvalidConfig, Message: fmt.Sprintf("no ENI matches %s", req.Query.Selector),
		}
	}
	if req.Query.NeedLink && e.Link.Index == 0 {
		return agentapi.AddReply{}, &agentapi.Error{Code: agentapi.CodeTryAgainLater, Message: "eni-1 has no link"}
	}
	return agentapi.AddReply{ENI: e}, nil
}

// Undelivered implements [agentapi.Handler].
func (a *agent) Undelivered(req agentapi.Request, _ agentapi.Response) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if req.Method == agentapi.MethodAdd || req.Method == agentapi.MethodRegister {
		delete(a.held, req.Attachment.Key)
	}
}

// save writes one line per hold.
func (a *agent) save() error {
	var lines []string
	for k, h := range a.held {
		line := k.String()
		for _, p := range h.addresses {
			line += " " + p.Addr().String()
		}
		lines = append(lines, line+"\n")
	}
	slices.SortFunc(lines, cmp.Compare)
	return os.WriteFile(a.file, []byte(strings.Join(lines, "")), 0o600)
}

// note writes the request, but for what every request has, and its method to the calls of agent and IPAM plugin.
func (a *agent) note(req agentapi.Request) error {
	text, err := json.Marshal(map[string]any{
		"method": req.Method, "query": req.Query, "addresses": req.Addresses, "onConflict": req.OnConflict,
		"network": req.Network, "valid": req.Valid,
	})
	if err != nil {
		return err
	}
	return errors.Join(logCall(a.file, "agent "+string(req.Method)), os.WriteFile(a.file+".asked", append(text, '\n'), 0o600))
}
