// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// pods answers claims, and records who made them and what the loopback of their namespace is: up or down.
type pods struct {
	came chan attachment.Netns
	hold chan struct{} // nil: answer at once
}

func (p *pods) HandlePod(ctx context.Context, c agentapi.Caller, req agentapi.Request) agentapi.Response {
	var seen attachment.Netns
	err := c.Enter(func(path string) error {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		seen = attachment.Netns{Cookie: c.Netns.Cookie, Inode: st.Ino, Device: st.Dev}
		return nil
	})
	if err != nil {
		return agentapi.Response{Error: &agentapi.Error{Code: agentapi.CodeInternal, Message: err.Error()}}
	}
	p.came <- seen
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-ctx.Done():
		}
	}
	resp := agentapi.Response{}
	for _, a := range req.Addresses {
		resp.Results = append(resp.Results, agentapi.Result{Addr: a.Addr(), New: true})
	}
	return resp
}

// podServer serves pods until the test ends.
func podServer(t *testing.T, h *pods) (socket string, log *bytes.Buffer) {
	t.Helper()
	h.came = make(chan attachment.Netns, 64)
	socket = filepath.Join(t.TempDir(), "sync", "sync.sock")
	log = &bytes.Buffer{}
	servePods(t, &agentapi.PodServer{Path: socket, Log: slog.New(slog.NewTextHandler(log, nil))}, h)
	return socket, log
}

// servePods serves until the test ends or stop is called.
func servePods(t *testing.T, s *agentapi.PodServer, h agentapi.PodHandler) (stop func()) {
	t.Helper()
	up := make(chan struct{}, 64)
	s.Up = func() { up <- struct{}{} }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, h) }()
	<-up
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

var claim = agentapi.Request{Method: agentapi.MethodClaim, Interface: "net1", Addresses: []netip.Prefix{netip.MustParsePrefix("10.10.1.80/32")}}

// inNetns runs do in a new network namespace, and tells what the kernel calls that.
func inNetns(t *testing.T, do func() error) (ns attachment.Netns) {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and let the thread die with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("unshare: %w", err)
			return
		}
		var st unix.Stat_t
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			ns.Cookie, err = unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
			_ = unix.Close(s) // never connected
		}
		if err == nil {
			err = unix.Stat("/proc/thread-self/ns/net", &st)
		}
		ns.Inode, ns.Device = st.Ino, st.Dev
		if err == nil {
			err = do()
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestPodIsKnownByItsNetworkNamespace(t *testing.T) {
	h := &pods{}
	socket, _ := podServer(t, h)
	var resp agentapi.Response
	want := inNetns(t, func() (err error) {
		resp, err = agentapi.Client{Socket: socket}.Call(within(t, enough), claim)
		return err
	})
	if got := <-h.came; got != want {
		t.Errorf("the caller is known as %+v, and is %+v", got, want)
	}
	if len(resp.Results) != 1 || !resp.Results[0].New || resp.Results[0].Addr != claim.Addresses[0].Addr() {
		t.Errorf("answer %+v", resp)
	}
}

// TestCallerThatIsGoneIsKnown: who connects and exits at once is still known by what it was, and its namespace can be looked
// into though nothing else keeps it.
func TestCallerThatIsGoneIsKnown(t *testing.T) {
	h := &pods{}
	socket, _ := podServer(t, h)
	want := inNetns(t, func() error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		claim := claim
		claim.Version = agentapi.Version
		text, err := json.Marshal(claim)
		if err != nil {
			return err
		}
		_, err = conn.Write(append(text, '\n'))
		return errors.Join(err, conn.Close())
	})
	if got := <-h.came; got != want {
		t.Errorf("the caller is known as %+v, and was %+v", got, want)
	}
}

// TestCallerOfAnotherPIDNamespaceIsKnown: process IDs, which mean nothing from there, are not asked for.
func TestCallerOfAnotherPIDNamespaceIsKnown(t *testing.T) {
	if socket := os.Getenv("AGENTAPI_TEST_SOCKET"); socket != "" {
		resp, err := agentapi.Client{Socket: socket}.Call(within(t, enough), claim)
		if err != nil || len(resp.Results) != 1 || os.Getpid() != 1 {
			t.Fatalf("as process %d: %+v, %v", os.Getpid(), resp, err)
		}
		return
	}
	h := &pods{}
	socket, _ := podServer(t, h)
	pod := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	pod.Env = append(os.Environ(), "AGENTAPI_TEST_SOCKET="+socket)
	pod.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID}
	if out, err := pod.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var own unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		t.Fatal(err)
	}
	if got := <-h.came; got.Cookie == 0 || got.Inode == 0 || got.Inode == own.Ino {
		t.Errorf("the caller is known as %+v", got)
	}
}

func tooMany(err error) bool {
	return err != nil && strings.Contains(agentapi.AsError(err).Message, "has 8 connections")
}

// TestConnectionsOfOneNamespaceAreLimited: four are served and four wait, what goes beyond is refused, and others are served meanwhile.
func TestConnectionsOfOneNamespaceAreLimited(t *testing.T) {
	h := &pods{hold: make(chan struct{})}
	socket, _ := podServer(t, h)
	const most = 2 * agentapi.DefaultPerNamespace
	var served sync.WaitGroup
	inNetns(t, func() error {
		var lines []*agentapi.Line
		for range most {
			lines = append(lines, agentapi.Client{Socket: socket}.Connect(t.Context()))
		}
		for _, line := range lines {
			served.Go(func() {
				_, err := agentapi.Client{Socket: socket, Ahead: line}.Call(within(t, enough), claim)
				if err != nil && !tooMany(err) { // one that looks whether all are there may come before the last
					t.Error(err)
				}
			})
		}
		for range agentapi.DefaultPerNamespace {
			<-h.came
		}
		for { // until the last of them has been seen
			_, err := agentapi.Client{Socket: socket}.Call(within(t, 100*time.Millisecond), claim)
			if tooMany(err) {
				if e := agentapi.AsError(err); e.Code != agentapi.CodeTryAgainLater {
					t.Errorf("refused with code %d", e.Code)
				}
				return nil
			}
		}
	})
	if n := len(h.came); n != 0 {
		t.Errorf("%d more are served at a time", n)
	}
	other := make(chan struct{})
	go func() {
		defer close(other)
		inNetns(t, func() error {
			_, err := agentapi.Client{Socket: socket}.Call(within(t, enough), claim)
			return err
		})
	}()
	<-h.came
	close(h.hold)
	<-other
	served.Wait()
}

// TestWhoGoesOnAndOnIsNotListenedTo: to be sent data without end must not keep the agent busy.
func TestWhoGoesOnAndOnIsNotListenedTo(t *testing.T) {
	h := &pods{hold: make(chan struct{})} // until the caller is given up
	socket, _ := podServer(t, h)
	conn := rawDial(t, socket)
	text, err := json.Marshal(agentapi.Request{Version: agentapi.Version, Method: agentapi.MethodClaim, Interface: "net1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = conn.Write(append(text, '\n')); err != nil {
		t.Fatal(err)
	}
	<-h.came
	if err = conn.SetWriteDeadline(time.Now().Add(enough)); err != nil {
		t.Fatal(err)
	}
	noise := bytes.Repeat([]byte(" "), 1<<20)
	for written := 0; err == nil && written < 64; written++ {
		_, err = conn.Write(noise)
	}
	if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("it was listened to for 64 MiB: %v", err)
	}
}

// TestFolderForPodsLeadsNowhereElse: a root container that mounts the folder finds no way to the agent's own socket from there, and
// what it does to the folder does nothing to that.
func TestFolderForPodsLeadsNowhereElse(t *testing.T) {
	if mnt := os.Getenv("AGENTAPI_TEST_MOUNT"); mnt != "" {
		fromWithin(t, mnt, os.Getenv("AGENTAPI_TEST_FOLDER"))
		return
	}
	dir := t.TempDir()
	own := filepath.Join(dir, "agent", "agent.sock")
	start(t, own, &agentapi.Server{}, newHandler())
	h := &pods{came: make(chan attachment.Netns, 1)}
	up := make(chan struct{}, 8)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&agentapi.PodServer{Path: filepath.Join(dir, "sync", "sync.sock"), Up: func() { up <- struct{}{} }}).Serve(ctx, h)
	}()
	defer func() { cancel(); <-done }()
	<-up
	pod := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	pod.Env = append(os.Environ(), "AGENTAPI_TEST_MOUNT="+t.TempDir(), "AGENTAPI_TEST_FOLDER="+filepath.Join(dir, "sync"))
	pod.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	if out, err := pod.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := (agentapi.Client{Socket: own}).Call(within(t, enough), status); err != nil {
		t.Errorf("the agent's own socket afterwards: %v", err)
	}
	<-up // the pods' one is there again
}

// fromWithin is the container: of the host it has the folder for pods alone, at mnt.
func fromWithin(t *testing.T, mnt, folder string) {
	for _, err := range []error{
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount(folder, mnt, "", unix.MS_BIND, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, way := range []string{"/../agent/agent.sock", "/agent.sock", "/../agent.sock"} {
		if _, err := os.Lstat(mnt + way); !os.IsNotExist(err) {
			t.Errorf("%s leads somewhere: %v", way, err)
		}
	}
	entries, err := os.ReadDir(mnt)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
	if err := os.RemoveAll(mnt + "/sync.sock"); err != nil {
		t.Error(err)
	}
}

// TestSocketIsMadeAnew: whatever a root container does to the folder that it mounts, the socket is there again a moment later, and
// nothing outside of the folder has changed.
func TestSocketIsMadeAnew(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	attacks := map[string]func(socket string) error{
		"removed":                 os.Remove,
		"replaced by a file":      func(s string) error { return errors.Join(os.Remove(s), os.WriteFile(s, nil, 0o644)) },
		"replaced by a link":      func(s string) error { return errors.Join(os.Remove(s), os.Symlink(outside, s)) },
		"replaced by a directory": func(s string) error { return errors.Join(os.Remove(s), os.Mkdir(s, 0o755)) },
		"moved away":              func(s string) error { return os.Rename(s, s+".old") },
		"replaced by an impostor": func(s string) error {
			if err := os.Remove(s); err != nil {
				return err
			}
			ln, err := net.Listen("unix", s)
			if err != nil {
				return err
			}
			ln.(*net.UnixListener).SetUnlinkOnClose(false)
			t.Cleanup(func() { _ = ln.Close() })
			return nil
		},
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &pods{}
			socket, _ := podServer(t, h)
			if err := attack(socket); err != nil {
				t.Fatal(err)
			}
			late := time.After(enough)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				now, statErr := os.Lstat(socket)
				if statErr == nil && now.Mode().Type() == os.ModeSocket && now.Mode().Perm() == 0o666 {
					break
				}
				select {
				case <-tick.C:
				case <-late:
					t.Fatalf("the socket is %v, %v", now, statErr)
				}
			}
			if _, err := (agentapi.Client{Socket: socket}).Call(within(t, enough), claim); err != nil {
				t.Error(err)
			}
			<-h.came
			info, err := os.Stat(outside)
			if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 1 {
				t.Errorf("the file outside: %v, %v", info, err)
			}
		})
	}
}

// TestRequestInFlightOutlivesTheSocketFile: a container that removes the file ends nobody else's request.
func TestRequestInFlightOutlivesTheSocketFile(t *testing.T) {
	h := &pods{hold: make(chan struct{})}
	socket, _ := podServer(t, h)
	answer := make(chan error, 1)
	go func() {
		_, err := agentapi.Client{Socket: socket}.Call(within(t, enough), claim)
		answer <- err
	}()
	<-h.came
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() { // it waits for the next socket
		_, err := agentapi.Client{Socket: socket}.Call(within(t, enough), claim)
		second <- err
	}()
	<-h.came
	close(h.hold)
	if err := errors.Join(<-answer, <-second); err != nil {
		t.Error(err)
	}
}

// cutShort answers claims as an agent does that stops meanwhile: the first address of each was done before.
type cutShort struct{ came chan struct{} }

func (h cutShort) HandlePod(ctx context.Context, _ agentapi.Caller, req agentapi.Request) agentapi.Response {
	close(h.came)
	<-ctx.Done()
	resp := agentapi.Response{}
	for i, a := range req.Addresses {
		resp.Results = append(resp.Results, agentapi.Result{Addr: a.Addr(), New: i == 0})
		if i > 0 {
			resp.Results[i].Error = &agentapi.Error{Code: agentapi.CodeTryAgainLater, Message: context.Cause(ctx).Error()}
		}
	}
	return resp
}

// always answers claims at once.
type always struct{}

func (always) HandlePod(_ context.Context, _ agentapi.Caller, req agentapi.Request) (resp agentapi.Response) {
	for _, a := range req.Addresses {
		resp.Results = append(resp.Results, agentapi.Result{Addr: a.Addr(), New: true})
	}
	return resp
}

// TestClaimThatItsAgentDoesNotFinishIsTheNextOnes: a pod does not learn that the agent was replaced while it claimed.
func TestClaimThatItsAgentDoesNotFinishIsTheNextOnes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "sync", "sync.sock")
	old := cutShort{make(chan struct{})}
	stop := servePods(t, &agentapi.PodServer{Path: socket}, old)
	two := claim
	two.Addresses = append(slices.Clone(claim.Addresses), netip.MustParsePrefix("10.10.1.81/32"))
	var resp agentapi.Response
	answered := make(chan error, 1)
	go func() {
		var err error
		resp, err = agentapi.Client{Socket: socket}.Call(within(t, enough), two)
		answered <- err
	}()
	<-old.came
	stop()
	servePods(t, &agentapi.PodServer{Path: socket}, always{})
	if err := <-answered; err != nil || len(resp.Results) != 2 || !resp.Results[0].New || !resp.Results[1].New {
		t.Errorf("%v, %+v", err, resp)
	}
}

// TestSocketsOfAgentAndPodsAreApart: a pod that mounts the folder of the one sees nothing of the other, and the agent's own refuses it
// even when it gets hold of that.
func TestSocketsOfAgentAndPodsAreApart(t *testing.T) {
	dir := t.TempDir()
	own, forPods := filepath.Join(dir, "agent", "agent.sock"), filepath.Join(dir, "sync", "sync.sock")
	start(t, own, &agentapi.Server{}, newHandler())
	h := &pods{came: make(chan attachment.Netns, 1)}
	stop := servePods(t, &agentapi.PodServer{Path: forPods}, h)
	entries, err := os.ReadDir(filepath.Dir(forPods))
	if err != nil || len(entries) != 1 || entries[0].Name() != "sync.sock" {
		t.Errorf("pods see %v, %v", entries, err)
	}
	inNetns(t, func() error {
		_, callErr := agentapi.Client{Socket: own}.Call(within(t, enough), status)
		wantCode(t, callErr, agentapi.CodeInternal, "another network namespace")
		return nil
	})
	stop()
	if _, err := os.Lstat(forPods); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
