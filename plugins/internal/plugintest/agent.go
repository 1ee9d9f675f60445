// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package plugintest

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
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

// agentMain is a small agent with one ENI: 10.10.1.64/26 of 10.10.1.0/24. It hands out addresses in order, the same
// again to the same attachment, and writes what it holds to a file after every request. It refuses requests that a
// correct plugin never sends.
func agentMain(args []string, stderr io.Writer) int {
	fs := flag.NewFlagSet("fakeagent", flag.ContinueOnError)
	socket := fs.String("socket", os.Getenv("SOCK"), "where to listen")
	a := &agent{next: netip.MustParseAddr("10.10.1.70"), held: map[attachment.Key]netip.Addr{}}
	fs.StringVar(&a.file, "holds", os.Getenv("HOLDS"), "where to write what is held")
	fs.StringVar(&a.link, "link", "", "name of the ENI's link")
	fs.StringVar(&a.refusal, "refuse", "", "answer every add with this message, code 11")
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

	mu   sync.Mutex
	next netip.Addr
	held map[attachment.Key]netip.Addr
}

// Handle implements [agentapi.Handler].
func (a *agent) Handle(_ context.Context, req agentapi.Request) agentapi.Response {
	a.mu.Lock()
	defer a.mu.Unlock()
	resp, err := a.handle(req)
	if saveErr := a.save(); err == nil {
		err = saveErr
	}
	if err != nil {
		return agentapi.Response{Error: agentapi.AsError(err)}
	}
	return resp
}

func (a *agent) handle(req agentapi.Request) (agentapi.Response, error) {
	switch req.Method {
	case agentapi.MethodAdd:
		return a.add(req)
	case agentapi.MethodDel:
		delete(a.held, req.Attachment.Key)
	case agentapi.MethodCheck:
		held := a.held[req.Attachment.Key]
		if len(req.Addresses) != 1 || req.Addresses[0] != netip.PrefixFrom(held, 24) {
			return agentapi.Response{}, &agentapi.Error{Code: agentapi.CodeCheckFailed, Message: fmt.Sprintf("holds %s, not %v", held, req.Addresses)}
		}
	case agentapi.MethodENI:
		reply, err := a.reply(req)
		return agentapi.Response{Add: &reply}, err
	}
	return agentapi.Response{}, nil
}

func (a *agent) add(req agentapi.Request) (agentapi.Response, error) {
	at := req.Attachment
	if at == nil || at.ContainerID == "" || at.IfName == "" || at.Network == "" || at.Netns.Path == "" || at.Netns.Cookie == 0 ||
		at.Pod != (attachment.Pod{Namespace: "ns1", Name: "amf-0", UID: "u1"}) || req.TimeoutMillis == 0 {
		return agentapi.Response{}, fmt.Errorf("fakeagent: the request lacks something: %+v", req)
	}
	if a.refusal != "" {
		return agentapi.Response{}, &agentapi.Error{Code: agentapi.CodeTryAgainLater, Message: a.refusal}
	}
	reply, err := a.reply(req)
	if err != nil {
		return agentapi.Response{}, err
	}
	addr, ok := a.held[at.Key]
	if !ok {
		addr, a.next = a.next, a.next.Next()
		a.held[at.Key] = addr
	}
	reply.Addresses = []netip.Prefix{netip.PrefixFrom(addr, 24)}
	return agentapi.Response{Add: &reply}, nil
}

// reply is the ENI; it must be what the query selects.
func (a *agent) reply(req agentapi.Request) (agentapi.AddReply, error) {
	e := agentapi.ENI{
		ID: "eni-1", MAC: "0a:00:00:00:00:01", DeviceIndex: 1,
		SubnetID: "subnet-1", SubnetIPv4: netip.MustParsePrefix("10.10.1.0/24"),
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
	if req.Method == agentapi.MethodAdd {
		delete(a.held, req.Attachment.Key)
	}
}

// save writes one line per hold.
func (a *agent) save() error {
	var lines []string
	for k, addr := range a.held {
		lines = append(lines, fmt.Sprintf("%s %s\n", k, addr))
	}
	slices.SortFunc(lines, cmp.Compare)
	return os.WriteFile(a.file, []byte(strings.Join(lines, "")), 0o600)
}
