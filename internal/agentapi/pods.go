// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// PodHandler answers pods. Its method is called from many goroutines.
type PodHandler interface {
	// HandlePod answers req, which came from the caller; for ctx see [Handler].
	HandlePod(ctx context.Context, c Caller, req Request) Response
}

// Caller is who is at the other end of a connection.
type Caller struct {
	// Netns is the network namespace that the connection was made in, without a path. It is the kernel's word, and holds though
	// the caller ended, whatever process IDs it sees, and whatever it may do in its namespace.
	Netns attachment.Netns
	conn  net.Conn
}

// Enter has a look inside the caller's namespace by a path that is good until look returns.
func (c Caller) Enter(look func(path string) error) error {
	fd, err := handle(c.conn)
	if err != nil {
		return fmt.Errorf("open the network namespace of the caller: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // opened for reading alone
	return look("/proc/self/fd/" + strconv.Itoa(fd))
}

// handle opens the network namespace of a connection.
func handle(conn net.Conn) (ns int, err error) {
	var inner error
	err = control(conn, func(fd int) { ns, inner = handleOf(fd) })
	return ns, errors.Join(err, inner)
}

const (
	// DefaultPerNamespace is how many connections of one network namespace are served at a time: init container and sidecar use
	// one for each interface of the pod that has something to tell at the moment.
	DefaultPerNamespace = 4
	// guardInterval is how often the server looks whether its socket is still where pods look for it.
	guardInterval = time.Second
)

// PodServer answers pods of any network namespace on a socket whose directory they mount. That directory must have nothing else
// of the agent's: a pod that mounts it for writing can remove what is in it, or put something else there. The server then makes
// the socket anew.
type PodServer struct {
	// Path of the socket.
	Path string
	// PerNamespace is how many connections of one namespace are served at a time; as many wait, and what goes beyond is refused. 0
	// means [DefaultPerNamespace].
	PerNamespace int
	// Log is told of connections that were not served; nil means nobody.
	Log *slog.Logger
	// Up is told that the socket is there, each time that it was made; nil means nobody is.
	Up func()
}

// Serve answers until ctx ends, then ends the requests in flight and returns when all are answered; those that fail by then, for one
// of their addresses or all, are not, so that their clients turn to the next agent. That the socket cannot be made is logged and tried
// again: whatever pods do to its directory must not end the agent.
func (p *PodServer) Serve(ctx context.Context, h PodHandler) {
	s := &Server{Log: p.Log, longest: maxPodRequest, pace: guardInterval}
	callers := newCrowd(p.PerNamespace)
	var served sync.WaitGroup
	defer served.Wait()
	said := ""
	tick := time.NewTicker(guardInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		err := p.generation(ctx, tick.C, func(ctx context.Context, ln net.Listener) error {
			said = ""
			return s.each(ctx, ln, &served, func(conn net.Conn) { s.serveCaller(ctx, conn, callers, h) })
		})
		if err != nil && err.Error() != said {
			said = err.Error()
			s.log("the sync socket cannot be served; it is tried again", err)
		}
		if errors.Is(err, errReplaced) {
			continue // which is seen once in a guardInterval
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (s *Server) log(what string, err error) {
	if s.Log != nil {
		s.Log.Error(what, "error", err)
	}
}

// generation listens until ctx ends or the socket is no longer where pods look for it. Requests outlive it.
func (p *PodServer) generation(ctx context.Context, tick <-chan time.Time, serve func(context.Context, net.Listener) error) error {
	ln, mine, err := listenForPods(p.Path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", p.Path, err)
	}
	if p.Up != nil {
		p.Up()
	}
	over := make(chan error, 1)
	go func() { over <- serve(ctx, ln) }()
	for {
		select {
		case err := <-over:
			if there, statErr := os.Lstat(p.Path); statErr == nil && os.SameFile(there, mine) {
				err = errors.Join(err, os.Remove(p.Path))
			}
			return err
		case <-tick:
		}
		there, err := os.Lstat(p.Path)
		if err == nil && os.SameFile(there, mine) { // its number is no other file's while it is bound
			continue
		}
		_ = ln.Close() // serve ends by it
		<-over         // with the error of the listener that was closed
		return errReplaced
	}
}

var errReplaced = errors.New("somebody removed or replaced the socket: mount its directory read-only into pods")

// serveCaller is one connection of a pod.
func (s *Server) serveCaller(ctx context.Context, conn net.Conn, callers *crowd, h PodHandler) {
	ns, err := namespaceOf(conn)
	if err != nil {
		s.refuse(conn, CodeInternal, fmt.Errorf("find the network namespace of the caller: %w", err))
		return
	}
	leave, err := callers.enter(ctx, ns)
	switch {
	case err != nil && ctx.Err() != nil:
		return // the client asks the next agent when nobody answers
	case err != nil:
		s.refuse(conn, CodeTryAgainLater, err)
		return
	}
	defer leave()
	s.serve(ctx, conn, podHandler{Caller{ns, conn}, h})
}

// podHandler is a [PodHandler] for one caller. A response that is not read needs no undoing: the next claim finds what this one
// did, and the namespace's end gives it back.
type podHandler struct {
	caller Caller
	h      PodHandler
}

func (p podHandler) Handle(ctx context.Context, req Request) Response {
	return p.h.HandlePod(ctx, p.caller, req)
}

func (podHandler) Undelivered(Request, Response) {}

// crowd has the connections of each network namespace take turns.
type crowd struct {
	limit int

	mu  sync.Mutex
	now map[attachment.Netns]*queue
}

// queue are the connections of one namespace.
type queue struct {
	present int
	turns   chan struct{} // has a value for each that is served
}

func newCrowd(limit int) *crowd {
	if limit == 0 {
		limit = DefaultPerNamespace
	}
	return &crowd{limit: limit, now: map[attachment.Netns]*queue{}}
}

// enter waits for the turn of a connection, and returns what ends it. As many as are served may wait: a client's last connection is
// still being closed here when its next one comes. What goes beyond is refused at once.
func (c *crowd) enter(ctx context.Context, ns attachment.Netns) (leave func(), err error) {
	c.mu.Lock()
	q := c.now[ns]
	if q == nil {
		q = &queue{turns: make(chan struct{}, c.limit)}
		c.now[ns] = q
	}
	if q.present == 2*c.limit {
		c.mu.Unlock()
		return nil, fmt.Errorf("this network namespace has %d connections to the agent already; try again", q.present)
	}
	q.present++
	c.mu.Unlock()
	gone := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if q.present--; q.present == 0 {
			delete(c.now, ns)
		}
	}
	late := time.NewTimer(peerTimeout)
	defer late.Stop()
	select {
	case q.turns <- struct{}{}:
		return func() { <-q.turns; gone() }, nil
	case <-late.C:
		err = fmt.Errorf("%d connections of this network namespace are being served, and none has ended for %s; try again", c.limit, peerTimeout)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	gone()
	return nil, err
}

// listenForPods makes the socket with mode 0666 in a directory of mode 0755, and removes whatever lies in its place: the agent that
// has the state directory is the only one, so it is no other agent's. Every step is about the file itself, never about what
// a link that a pod put there leads to.
func listenForPods(path string) (net.Listener, fs.FileInfo, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	ln.SetUnlinkOnClose(false) // what lies there by then may be another's
	mine, err := open(path)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the socket to pods: %w", err), ln.Close())
	}
	return ln, mine, nil
}

// open lets everybody connect to the socket at path, and identifies it.
func open(path string) (fs.FileInfo, error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // a handle without access
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return nil, errReplaced
	}
	return info, os.Chmod("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), 0o666)
}
