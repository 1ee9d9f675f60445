// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
)

// gate stands between one worker's agent and EC2. It lets requests through until a trap is set, which catches the next
// request of an action before EC2 has seen it, or after EC2 has done it and before the agent knows.
type gate struct {
	ec2 http.Handler

	mu   sync.Mutex
	open int // requests between here and their answer
	trap *trap
}

// trap catches one request.
type trap struct {
	action  string
	applied bool          // catch it after EC2 has done it
	entered func()        // when set, the request is only watched: called at its start, and caught when it is answered
	caught  chan struct{} // closed when the request is in the trap
	verdict chan verdict  // what becomes of it then
}

// verdict is what becomes of a request in a trap.
type verdict int

const (
	pass verdict = iota // goes on as if nothing had happened
	drop                // the connection closes without an answer; EC2 never sees what it has not seen yet
)

// set makes t the trap of the next matching request, or removes the trap when t is nil.
func (g *gate) set(t *trap) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trap = t
}

// inFlight counts the requests that are not answered.
func (g *gate) inFlight() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// enter counts a request in and takes the trap if it is the request's.
func (g *gate) enter(action string) *trap {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open++
	if g.trap == nil || g.trap.action != action {
		return nil
	}
	t := g.trap
	g.trap = nil
	return t
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client died while it was sending
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// A request that has arrived takes effect, whatever becomes of its sender.
	r = r.WithContext(context.WithoutCancel(r.Context()))
	r.Body = io.NopCloser(bytes.NewReader(body))
	t := g.enter(form.Get("Action"))
	defer g.leave()
	switch {
	case t == nil:
		g.ec2.ServeHTTP(w, r)
	case t.entered != nil:
		t.entered()
		g.ec2.ServeHTTP(w, r)
		close(t.caught)
	case t.applied:
		answer := httptest.NewRecorder()
		g.ec2.ServeHTTP(answer, r)
		t.hold()
		replay(w, answer)
	default:
		t.hold()
		g.ec2.ServeHTTP(w, r)
	}
}

// hold returns when the request may go on.
func (t *trap) hold() {
	close(t.caught)
	if <-t.verdict == drop {
		panic(http.ErrAbortHandler)
	}
}

func replay(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the agent may be dead: nobody is left to tell
}
