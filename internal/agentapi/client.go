// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

const (
	// firstPause and longestPause bound the waits between two attempts to reach an agent: short at first, because an
	// agent that restarts is back within milliseconds, and never so long that a burst of pods waits for nothing.
	firstPause, longestPause = 5 * time.Millisecond, 200 * time.Millisecond

	// maxResponse bounds what a client reads. A status of 15 ENIs with 50 addresses each takes about 200 KiB.
	maxResponse = 16 << 20
)

// Client asks the agent of this node. It keeps no connection; the zero value with Socket set is ready, and without Ahead
// it is safe for concurrent use.
type Client struct {
	// Socket is the path of the agent's socket.
	Socket string
	// Timeout of a call; 0 means that only the context ends it. Unlike a context's deadline it needs no timer.
	Timeout time.Duration
	// Patience is how long an agent that does not listen is waited for; 0 means to the end of the call.
	Patience time.Duration
	// Version is the protocol version to speak; 0 means [Version].
	Version int
	// Ahead is a connection for the first call; nil means none.
	Ahead *Line
}

// Line is a connection that was made ahead of its only use.
type Line struct{ conn *stream }

// Connect makes a connection ahead of the next call: an idle agent takes longer to wake up than the caller may need until
// it knows what to ask. It returns nil when no agent listens, which is for Call to deal with. A Line that no client gets
// must be closed.
func (c Client) Connect(ctx context.Context) *Line {
	conn, err := dial(ctx, c.Socket)
	if err != nil {
		return nil
	}
	return &Line{conn}
}

// Close gives up a connection that was not used. It does nothing on a nil Line and on one that a call has had.
func (l *Line) Close() {
	if l != nil && l.conn != nil {
		l.conn.close()
		l.conn = nil
	}
}

// UnavailableError says that no agent answered: nothing is known about what the request has done.
type UnavailableError struct {
	Socket string
	// Connected is whether an agent took the request, and then did not answer in time.
	Connected bool
	Err       error
}

func (e *UnavailableError) Error() string {
	const remedy = "check the multus-vpc agent on this node"
	if e.Connected {
		return fmt.Sprintf("the agent on %s did not answer in time: %v; %s", e.Socket, e.Err, remedy)
	}
	return fmt.Sprintf("no agent listens on %s: %v; %s, and agentSocket when it listens elsewhere", e.Socket, e.Err, remedy)
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Call sends req and returns the agent's response. All methods may be repeated, so Call asks again when no agent
// listens yet or when one goes away before it has answered, until ctx ends, or Timeout or Patience is over; then the error
// is an [*UnavailableError]. An error that the agent answered comes back as [*Error]. Version and, when zero,
// TimeoutMillis of req are filled in.
func (c Client) Call(ctx context.Context, req Request) (Response, error) {
	req.Version = orDefault(c.Version)
	resp, err := c.persist(ctx, req)
	if err != nil {
		return Response{}, err
	}
	if resp.Version == req.Version-1 && serves(req.Version, resp.Version) && refusedVersion(resp) {
		req.Version = resp.Version // an agent that is one version behind
		if resp, err = c.persist(ctx, req); err != nil {
			return Response{}, err
		}
	}
	if resp.Error != nil {
		return resp, resp.Error
	}
	if own := orDefault(c.Version); !serves(own, resp.Version) && !serves(resp.Version, own) {
		return resp, versionError(own, resp.Version)
	}
	return resp, nil
}

func refusedVersion(r Response) bool { return r.Error != nil && r.Error.Code == CodeVersion }

// persist repeats the exchange while there is no agent.
func (c Client) persist(ctx context.Context, req Request) (Response, error) {
	began := time.Now()
	deadline, bounded := ctx.Deadline()
	if end := began.Add(c.Timeout); c.Timeout > 0 && (!bounded || end.Before(deadline)) {
		deadline, bounded = end, true
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		resp, connected, err := c.exchange(ctx, deadline, req)
		switch {
		case err == nil:
			return resp, nil
		case ctx.Err() != nil:
			return resp, &UnavailableError{Socket: c.Socket, Connected: connected, Err: context.Cause(ctx)}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return resp, &UnavailableError{Socket: c.Socket, Connected: connected, Err: fmt.Errorf("%w after %s", err, time.Since(began).Round(time.Millisecond))}
		case !absent(err):
			return resp, err
		}
		left := pause
		if bounded {
			left = min(left, time.Until(deadline))
		}
		if c.Patience > 0 {
			left = min(left, c.Patience-time.Since(began))
		}
		if left <= 0 || !sleep(ctx, left) {
			return resp, &UnavailableError{Socket: c.Socket, Err: err}
		}
	}
}

// sleep reports whether it was not cut short.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// absent reports whether err says that no agent is there, or that one left before it answered.
func absent(err error) bool {
	for _, e := range []error{
		// not started yet or no longer, or with a full backlog (unix(7))
		syscall.ENOENT, syscall.ECONNREFUSED, syscall.EAGAIN,
		// stopped during the exchange
		syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// exchange is one connection, one request and one response; a zero deadline is none.
func (c Client) exchange(ctx context.Context, deadline time.Time, req Request) (resp Response, connected bool, err error) {
	conn, err := c.connection(ctx)
	if err != nil {
		return resp, false, err
	}
	defer conn.close()
	if err = conn.bound(deadline); err != nil {
		return resp, false, fmt.Errorf("set the deadline of the exchange with the agent: %w", err)
	}
	if !deadline.IsZero() && req.TimeoutMillis == 0 {
		req.TimeoutMillis = answerWithin(time.Until(deadline)).Milliseconds()
	}
	// An agent that refuses the connection answers without reading: a failed write does not mean there is no answer.
	_, sendErr := conn.Write(append(encode(req), '\n'))
	message, err := receive(conn)
	if err == nil {
		resp, err = decode(message)
	}
	switch {
	case err == nil:
		return resp, true, nil
	case sendErr != nil:
		return resp, true, fmt.Errorf("send the request to the agent: %w", sendErr)
	}
	return resp, true, fmt.Errorf("read the response of the agent: %w", err)
}

// connection is the one that was made ahead, once, or a new one.
func (c Client) connection(ctx context.Context) (*stream, error) {
	if c.Ahead != nil && c.Ahead.conn != nil {
		conn := c.Ahead.conn
		c.Ahead.conn = nil
		return conn, nil
	}
	return dial(ctx, c.Socket)
}

// answerWithin is the time that the agent has so that its answer arrives before the client leaves.
func answerWithin(left time.Duration) time.Duration {
	return max(left-min(left/10, 500*time.Millisecond), time.Millisecond)
}

// AsError brings what [Client.Call] failed with into the form that CNI runtimes see: code and message.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if _, ok := errors.AsType[*UnavailableError](err); ok {
		return &Error{Code: CodeTryAgainLater, Message: err.Error()}
	}
	return &Error{Code: CodeIO, Message: err.Error()}
}
