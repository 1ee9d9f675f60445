// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// stream is a connected unix socket that blocks the calling thread. A plugin has nothing else to do meanwhile, and
// package net would start a poller and further threads for a single exchange: a fifth of the process's life.
type stream struct {
	fd   int
	stop func() bool
	idle chan struct{} // closed once the end of ctx has been acted upon
}

// dial connects to the socket at path. When ctx ends, a blocked Read or Write returns.
func dial(ctx context.Context, path string) (*stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Without blocking, connect answers EAGAIN when the backlog is full.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		_ = unix.Close(fd) // never used
		return nil, fmt.Errorf("connect: %w", err)
	}
	s := &stream{fd: fd, idle: make(chan struct{})}
	s.stop = context.AfterFunc(ctx, func() {
		defer close(s.idle)
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // wakes whoever is blocked
	})
	return s, nil
}

// bound makes a blocked Read or Write return [os.ErrDeadlineExceeded] at the deadline, unless it is zero. It gives each of
// them the time that is left now: an exchange has one of each that blocks.
func (s *stream) bound(deadline time.Time) error {
	if deadline.IsZero() {
		return nil
	}
	left := unix.NsecToTimeval(max(time.Until(deadline), time.Microsecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left); err != nil {
		return err
	}
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &left)
}

func (s *stream) close() {
	if !s.stop() {
		<-s.idle // the number must not be used any more
	}
	_ = unix.Close(s.fd) // everything was read, or the exchange has failed already
}

func (s *stream) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, os.ErrDeadlineExceeded
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (s *stream) Write(b []byte) (written int, err error) {
	for written < len(b) {
		// MSG_NOSIGNAL: the peer may be gone.
		n, err := unix.SendmsgN(s.fd, b[written:], nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN:
			return written, os.ErrDeadlineExceeded
		case err != nil && err != unix.EINTR:
			return written, err
		}
		written += max(n, 0)
	}
	return written, nil
}
