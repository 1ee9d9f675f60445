// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
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

// Client asks the agent of this node. It keeps no connection; the zero value with Socket set is ready, and it is safe
// for concurrent use.
type Client struct {
	// Socket is the path of the agent's socket.
	Socket string
	// Patience is how long an agent that does not listen is waited for; 0 means as long as the context lets.
	Patience time.Duration
	// Version is the protocol version to speak; 0 means [Version].
	Version int
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
// listens yet or when one goes away before it has answered, until ctx ends or [Client.Patience] is over; then the error
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
	var over <-chan time.Time
	if c.Patience > 0 {
		t := time.NewTimer(c.Patience)
		defer t.Stop()
		over = t.C
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		resp, connected, err := c.exchange(ctx, req)
		switch {
		case err == nil:
			return resp, nil
		case ctx.Err() != nil:
			return resp, &UnavailableError{Socket: c.Socket, Connected: connected, Err: errors.Join(context.Cause(ctx), unlessEnded(ctx, err))}
		case !absent(err):
			return resp, err
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
			continue
		case <-over:
		case <-ctx.Done():
		}
		again.Stop()
		return resp, &UnavailableError{Socket: c.Socket, Err: err}
	}
}

// unlessEnded drops an error that only repeats that ctx has ended.
func unlessEnded(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
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

// exchange is one connection, one request and one response.
func (c Client) exchange(ctx context.Context, req Request) (resp Response, connected bool, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return resp, false, err
	}
	defer func() { _ = conn.Close() }() // everything was read, or the exchange has failed already
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	if deadline, ok := ctx.Deadline(); ok && req.TimeoutMillis == 0 {
		req.TimeoutMillis = answerWithin(time.Until(deadline)).Milliseconds()
	}
	msg, err := json.Marshal(req)
	if err != nil {
		return resp, true, fmt.Errorf("encode the request to the agent: %w", err)
	}
	// An agent that refuses the connection answers without reading: a failed write does not mean there is no answer.
	_, sendErr := conn.Write(append(msg, '\n'))
	err = json.NewDecoder(io.LimitReader(conn, maxResponse)).Decode(&resp)
	switch {
	case err == nil:
		return resp, true, nil
	case sendErr != nil:
		return resp, true, fmt.Errorf("send the request to the agent: %w", sendErr)
	}
	return resp, true, fmt.Errorf("read the response of the agent: %w", err)
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
