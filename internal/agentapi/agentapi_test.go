// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// handler records what it is asked and answers through answer.
type handler struct {
	answer      func(context.Context, agentapi.Request) agentapi.Response
	undelivered chan agentapi.Request

	mu    sync.Mutex
	asked []agentapi.Request
}

func (h *handler) Handle(ctx context.Context, req agentapi.Request) agentapi.Response {
	h.mu.Lock()
	h.asked = append(h.asked, req)
	h.mu.Unlock()
	if h.answer != nil {
		return h.answer(ctx, req)
	}
	return agentapi.Response{Status: &agentapi.Status{InstanceID: "i-1"}}
}

func (h *handler) Undelivered(req agentapi.Request, _ agentapi.Response) { h.undelivered <- req }

func (h *handler) requests() []agentapi.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

func newHandler() *handler { return &handler{undelivered: make(chan agentapi.Request, 8)} }

// start serves on socket until the test ends or stop is called.
func start(t testing.TB, socket string, s *agentapi.Server, h agentapi.Handler) (stop func()) {
	t.Helper()
	ln, err := agentapi.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func socketIn(t *testing.T) string { return filepath.Join(t.TempDir(), "agent", "agent.sock") }

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// enough is far more than anything here takes; a test that reaches it fails.
const enough = 20 * time.Second

var status = agentapi.Request{Method: agentapi.MethodStatus}

func wantCode(t *testing.T, err error, code uint, says ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	e := agentapi.AsError(err)
	if e.Code != code {
		t.Errorf("code = %d, want %d (%v)", e.Code, code, err)
	}
	for _, s := range says {
		if !strings.Contains(e.Error(), s) {
			t.Errorf("message %q lacks %q", e, s)
		}
	}
}

func TestRequestIsAnswered(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	start(t, socket, &agentapi.Server{}, h)
	req := agentapi.Request{Method: agentapi.MethodDel, Attachment: &attachment.Attachment{
		Key: attachment.Key{ContainerID: "c1", IfName: "net1"}, Netns: attachment.Netns{Cookie: 1 << 63},
	}}
	resp, err := agentapi.Client{Socket: socket}.Call(within(t, enough), req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Version != agentapi.Version || resp.Status == nil {
		t.Errorf("response = %+v", resp)
	}
	got := h.requests()[0]
	if got.Attachment.Key != req.Attachment.Key || got.Attachment.Netns != req.Attachment.Netns || got.Version != agentapi.Version {
		t.Errorf("agent saw %+v", got)
	}
	if got.TimeoutMillis <= 0 || got.TimeoutMillis >= enough.Milliseconds() {
		t.Errorf("TimeoutMillis = %d, want a little less than %d", got.TimeoutMillis, enough.Milliseconds())
	}
}

func TestErrorOfTheAgentComesBack(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	h.answer = func(context.Context, agentapi.Request) agentapi.Response {
		return agentapi.Response{Error: &agentapi.Error{Code: 11, Message: "reservation full", Details: "scr-1"}}
	}
	start(t, socket, &agentapi.Server{}, h)
	_, err := agentapi.Client{Socket: socket}.Call(within(t, enough), status)
	wantCode(t, err, 11, "reservation full", "scr-1")
}

func TestClientWaitsForTheAgentToListen(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	answered := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		close(started)
		_, err := agentapi.Client{Socket: socket}.Call(within(t, enough), status)
		answered <- err
	}()
	<-started
	start(t, socket, &agentapi.Server{}, h)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestClientAsksTheNextAgentWhenOneIsKilled(t *testing.T) {
	socket := socketIn(t)
	ln, err := agentapi.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, callErr := agentapi.Client{Socket: socket}.Call(within(t, enough), status)
		answered <- callErr
	}()
	conn, err := ln.Accept() // an agent that takes the request and dies
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conn.Close(), ln.Close()); err != nil {
		t.Fatal(err)
	}
	start(t, socket, &agentapi.Server{}, newHandler())
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestNoAgentIsTryAgainLater(t *testing.T) {
	socket := socketIn(t)
	tests := map[string]struct {
		client agentapi.Client
		ctx    context.Context
	}{
		"until the context ends": {agentapi.Client{Socket: socket}, within(t, 50*time.Millisecond)},
		"until patience is over": {agentapi.Client{Socket: socket, Patience: 50 * time.Millisecond}, within(t, enough)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := tt.client.Call(tt.ctx, status)
			wantCode(t, err, agentapi.CodeTryAgainLater, socket, "no agent listens", "check the multus-vpc agent")
		})
	}
}

func TestSilentAgentIsTryAgainLater(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	h.answer = func(ctx context.Context, _ agentapi.Request) agentapi.Response {
		<-ctx.Done()
		return agentapi.Response{}
	}
	start(t, socket, &agentapi.Server{}, h)
	_, err := agentapi.Client{Socket: socket}.Call(within(t, 50*time.Millisecond),
		agentapi.Request{Method: agentapi.MethodAdd, TimeoutMillis: 60_000})
	wantCode(t, err, agentapi.CodeTryAgainLater, socket, "did not answer in time")
	if req := <-h.undelivered; req.Method != agentapi.MethodAdd {
		t.Errorf("undelivered = %+v", req)
	}
}

func TestHandlerEndsWithTheClientsPatience(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	h.answer = func(ctx context.Context, _ agentapi.Request) agentapi.Response {
		<-ctx.Done()
		return agentapi.Response{Error: &agentapi.Error{Code: 11, Message: "nothing came free"}}
	}
	start(t, socket, &agentapi.Server{}, h)
	_, err := agentapi.Client{Socket: socket}.Call(within(t, enough), agentapi.Request{Method: agentapi.MethodAdd, TimeoutMillis: 30})
	wantCode(t, err, 11, "nothing came free")
}

func TestVersions(t *testing.T) {
	tests := []struct {
		name          string
		client, agent int
		says          string // of the refusal; empty when they understand one another
	}{
		{"equal", 1, 1, ""},
		{"agent one newer", 1, 2, ""},
		{"agent two newer", 1, 3, "upgrade the plugins"},
		{"client one newer", 2, 1, ""},
		{"client two newer", 3, 1, "upgrade the agent"},
		{"far apart", 9, 4, "the agent 4 and 3; upgrade the agent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			socket, h := socketIn(t), newHandler()
			start(t, socket, &agentapi.Server{Version: tt.agent}, h)
			resp, err := agentapi.Client{Socket: socket, Version: tt.client}.Call(within(t, enough), status)
			if tt.says != "" {
				wantCode(t, err, agentapi.CodeVersion, tt.says)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			spoken := h.requests()[0].Version
			if resp.Version != tt.agent || spoken != min(tt.client, tt.agent) {
				t.Errorf("answered in version %d, asked in %d", resp.Version, spoken)
			}
		})
	}
}

// rawDial connects without the client, to misbehave.
func rawDial(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.UnixConn)
}

func decode(t *testing.T, r io.Reader) (resp agentapi.Response) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(&resp); err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestBadRequestIsRefused(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	start(t, socket, &agentapi.Server{}, h)
	for name, msg := range map[string]string{
		"no JSON":    "GET / HTTP/1.1\n\n",
		"wrong type": `{"version": "one"}`,
		"too long":   `{"method": "` + strings.Repeat("x", 5<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			conn := rawDial(t, socket)
			_, _ = conn.Write([]byte(msg)) // the server may close before it has read all
			if e := decode(t, conn).Error; e == nil || e.Code != agentapi.CodeDecode {
				t.Errorf("error = %v, want code 6", e)
			}
		})
	}
	if n := len(h.requests()); n != 0 {
		t.Errorf("handler saw %d requests", n)
	}
}

func TestGoneClientCancelsAndUndelivers(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	h.answer = func(ctx context.Context, _ agentapi.Request) agentapi.Response {
		<-ctx.Done()
		return agentapi.Response{Add: &agentapi.AddReply{}}
	}
	start(t, socket, &agentapi.Server{}, h)
	conn := rawDial(t, socket)
	if _, err := conn.Write([]byte(`{"version": 1, "method": "add"}`)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if req := <-h.undelivered; req.Method != agentapi.MethodAdd {
		t.Errorf("undelivered = %+v", req)
	}
}

func TestResponseThatNobodyReadIsUndelivered(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	start(t, socket, &agentapi.Server{}, h)
	conn := rawDial(t, socket)
	if _, err := conn.Write([]byte(`{"version": 1, "method": "add"}`)); err != nil {
		t.Fatal(err)
	}
	await(t, conn, unix.POLLIN) // the response lies in the socket
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	<-h.undelivered
}

func TestResponseThatWasReadIsNotUndelivered(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	stop := start(t, socket, &agentapi.Server{}, h)
	for range 50 {
		if _, err := (agentapi.Client{Socket: socket}).Call(within(t, enough), status); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if n := len(h.undelivered); n != 0 {
		t.Errorf("%d responses counted as undelivered", n)
	}
}

// await waits until the connection is ready for event.
func await(t *testing.T, conn *net.UnixConn, event int16) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: event}}, int(enough.Milliseconds())); n != 1 {
			t.Errorf("poll: %d, %v", n, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func TestConnectionsBeyondTheLimitWait(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	var mu sync.Mutex
	now, most := 0, 0
	h.answer = func(context.Context, agentapi.Request) agentapi.Response {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		runtime.Gosched()
		mu.Lock()
		now--
		mu.Unlock()
		return agentapi.Response{}
	}
	start(t, socket, &agentapi.Server{Connections: 2}, h)
	var clients sync.WaitGroup
	for range 40 {
		clients.Go(func() {
			if _, err := (agentapi.Client{Socket: socket}).Call(within(t, enough), status); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	mu.Lock()
	defer mu.Unlock()
	if n := len(h.requests()); n != 40 || most > 2 {
		t.Errorf("%d answered, %d at a time; want 40 and at most 2", n, most)
	}
}

func TestPeerOfAnotherNetworkNamespaceIsRefused(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	start(t, socket, &agentapi.Server{}, h)
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and let the thread die with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		_, err := agentapi.Client{Socket: socket}.Call(within(t, enough), status)
		result <- err
	}()
	wantCode(t, <-result, agentapi.CodeInternal, "another network namespace")
	if n := len(h.requests()); n != 0 {
		t.Errorf("handler saw %d requests", n)
	}
}

func TestListenMakesAPrivateSocket(t *testing.T) {
	socket := socketIn(t)
	ln, err := agentapi.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		if info, statErr := os.Stat(path); statErr != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, error %v, want %v", path, info.Mode(), statErr, want)
		}
	}
	if _, err = agentapi.Listen(socket); err == nil || !strings.Contains(err.Error(), "another agent listens") {
		t.Errorf("second Listen: %v", err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // as after kill -9
	if err = ln.Close(); err != nil {
		t.Fatal(err)
	}
	if ln, err = agentapi.Listen(socket); err != nil {
		t.Fatalf("Listen over a stale socket: %v", err)
	}
	if err = ln.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestListenTightensOnlyADirectoryOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // as kubelet makes hostPath directories
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, agentapi.TombstoneDir), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := agentapi.Listen(filepath.Join(dir, "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}

	shared := t.TempDir()
	if err := errors.Join(os.Chmod(shared, 0o755), os.WriteFile(filepath.Join(shared, "other"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := agentapi.Listen(filepath.Join(shared, "agent.sock")); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("Listen in a shared directory: %v", err)
	}
	if info, err := os.Stat(shared); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("shared directory: mode %v, error %v", info.Mode(), err)
	}
}

func TestListenLeavesAFileAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.sock")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := agentapi.Listen(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("Listen over a file: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("file: %q, %v", b, err)
	}
}
