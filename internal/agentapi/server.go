// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxRequest bounds what a client may send. A request is below 2 KiB, but that of GC lists the attachments of the node, which
	// libcni does twice: 2.3 MiB on the largest, with 16 interfaces for each of its 737 pods.
	maxRequest = 4 << 20
	// maxPodRequest is the bound for pods, which anybody may run.
	maxPodRequest = 64 << 10
	// maxTrailing is what may follow a request: white space.
	maxTrailing = 64
	// defaultConnections leaves room for every pod of the largest node (737) to have an ADD waiting.
	defaultConnections = 1024
	// peerTimeout is how long a peer may take for what needs no thought: to send its request, to take the response, to
	// close. Plugins do each within milliseconds.
	peerTimeout = 5 * time.Second
	// maxPatience bounds what a client says of its own: kubelet gives a sandbox four minutes.
	maxPatience = time.Hour
)

// Handler answers requests. Both methods are called from many goroutines.
type Handler interface {
	// Handle answers req; its ctx ends with the client's patience, when the client goes away, and when the server
	// stops. Version of the response is filled in.
	Handle(ctx context.Context, req Request) Response
	// Undelivered is told of a response that the client has not read: what was allocated is nobody's.
	Undelivered(req Request, resp Response)
}

// Server answers plugins on a unix socket. The zero value is ready.
type Server struct {
	// Version is the protocol version to speak; 0 means [Version].
	Version int
	// Connections is how many are served at a time, the rest waits; 0 means 1024.
	Connections int
	// Log is told of connections that were not served; nil means nobody.
	Log *slog.Logger

	longest  int64         // request in bytes; 0: maxRequest
	pace     time.Duration // of what is logged of refused connections; 0: all of them
	lastSaid atomic.Int64  // in nanoseconds, when pace is not 0
}

// Serve answers on ln until ctx ends, then closes ln, ends the requests in flight and returns nil once all are
// answered; those that fail by then are not, so that their clients turn to the next agent. Peers in another network namespace than ln's are refused.
func (s *Server) Serve(ctx context.Context, ln net.Listener, h Handler) error {
	home, err := namespaceOf(ln)
	if err != nil {
		return fmt.Errorf("find the network namespace of %s: %w", ln.Addr(), err)
	}
	var served sync.WaitGroup
	defer served.Wait()
	return s.each(ctx, ln, &served, func(conn net.Conn) {
		if refused := admit(conn, home); refused != nil {
			s.refuse(conn, CodeInternal, refused)
			return
		}
		s.serve(ctx, conn, h)
	})
}

// each accepts connections until ctx ends, and has each served by its own goroutine, which served counts.
func (s *Server) each(ctx context.Context, ln net.Listener, served *sync.WaitGroup, serve func(net.Conn)) error {
	defer func() { _ = ln.Close() }() // if it is not closed already, it is only now that nobody waits on it
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	limit := s.Connections
	if limit == 0 {
		limit = defaultConnections
	}
	for slots := make(chan struct{}, limit); ; {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := accept(ctx, ln)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		served.Go(func() {
			defer func() { <-slots }()
			defer func() { _ = conn.Close() }() // nothing is left to be written
			serve(conn)
		})
	}
}

// accept waits for the next connection and rides out a shortage of file descriptors.
func accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	for {
		conn, err := ln.Accept()
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) && !errors.Is(err, syscall.ECONNABORTED) {
			return conn, err
		}
		select {
		case <-time.After(longestPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// serve is one connection: read the request, answer it, see whether the answer was read.
func (s *Server) serve(life context.Context, conn net.Conn, h Handler) {
	req, ok := s.request(life, conn)
	if !ok {
		return
	}
	ctx, cancel := context.WithCancel(life)
	defer cancel()
	if req.TimeoutMillis > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(min(req.TimeoutMillis, maxPatience.Milliseconds()))*time.Millisecond)
		defer cancel()
	}
	left := make(chan error, 1)
	go func() {
		// A client says nothing more, so this ends when it closes; one that goes on and on is not listened to.
		_, closed := io.Copy(io.Discard, io.LimitReader(conn, maxTrailing))
		left <- closed
		cancel()
	}()
	resp := h.Handle(ctx, req)
	if resp.failed() && life.Err() != nil {
		return // it failed because this agent ends: the client asks the next one when nobody answers
	}
	resp.Version = orDefault(s.Version)
	err := send(conn, resp)
	// Closing with unread data resets a unix stream, so the peer's close tells whether it has read the response
	// (net/unix/af_unix.c, unix_release_sock). A peer that neither reads nor closes is taken to be slow.
	_ = conn.SetReadDeadline(time.Now().Add(peerTimeout))
	if closed := <-left; err == nil && closed != nil && !errors.Is(closed, os.ErrDeadlineExceeded) {
		err = closed
	}
	if err != nil {
		h.Undelivered(req, resp)
	}
}

// request reads what the client wants; ok is false when there is nothing to be handled.
func (s *Server) request(ctx context.Context, conn net.Conn) (_ Request, ok bool) {
	_ = conn.SetReadDeadline(time.Now().Add(peerTimeout))
	goOn := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	longest := cmp.Or(s.longest, maxRequest)
	req, err := readRequest(conn, longest)
	switch own := orDefault(s.Version); {
	case !goOn() || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded):
		// Connected ahead of a request that did not come, or not yet: the client then connects again.
		return req, false
	case err != nil && (req.Version == 0 || serves(own, req.Version)):
		s.refuse(conn, CodeDecode, fmt.Errorf("read the request, JSON of at most %d bytes: %w", longest, err))
		return req, false
	case !serves(own, req.Version):
		e := versionError(req.Version, own)
		s.refuse(conn, e.Code, e)
		return req, false
	}
	_ = conn.SetReadDeadline(time.Time{})
	return req, true
}

// readRequest reads one JSON value of at most longest bytes. What it accepts has no address that is none. With an error it
// returns what could be read: the version, by which what else is there is judged.
func readRequest(r io.Reader, longest int64) (req Request, err error) {
	if err = json.NewDecoder(io.LimitReader(r, longest)).Decode(&req); err != nil {
		return req, err
	}
	return req, req.wellFormed()
}

// refuse answers an error that no handler has seen.
func (s *Server) refuse(conn net.Conn, code uint, reason error) {
	if s.Log != nil && s.mayLog(time.Now()) {
		s.Log.Warn("refused a connection", "socket", conn.LocalAddr().String(), "reason", reason)
	}
	_ = send(conn, Response{Version: orDefault(s.Version), Error: &Error{Code: code, Message: reason.Error()}})
}

// mayLog keeps those who are refused from filling the disk with it.
func (s *Server) mayLog(now time.Time) bool {
	if s.pace == 0 {
		return true
	}
	last := s.lastSaid.Load()
	return now.UnixNano()-last >= s.pace.Nanoseconds() && s.lastSaid.CompareAndSwap(last, now.UnixNano())
}

func send(conn net.Conn, resp Response) error {
	msg, err := json.Marshal(resp)
	if err != nil {
		return fmt.Errorf("encode the response: %w", err)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(peerTimeout))
	_, err = conn.Write(append(msg, '\n'))
	return err
}
