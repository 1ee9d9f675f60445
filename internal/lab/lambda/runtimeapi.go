// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// runtimeAPI is what one program talks to, version 2018-06-01.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
type runtimeAPI struct {
	mux   *http.ServeMux
	arn   string
	ready chan struct{} // closed when the program has asked for its first event
	next  chan *handing // the event that it shall get

	mu        sync.Mutex
	asked     bool
	current   *handing // that the program has got and not answered
	initError *FunctionError
}

// handing is an event on its way through a program.
type handing struct {
	invocation
	deadline time.Time
	done     chan outcome // of one
}

type outcome struct {
	answer []byte
	err    error
}

// maxPayload is the largest answer of a synchronous invocation.
// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const maxPayload = 6 << 20

func newRuntimeAPI(arn string) *runtimeAPI {
	a := &runtimeAPI{arn: arn, mux: http.NewServeMux(), ready: make(chan struct{}), next: make(chan *handing, 1)}
	const root = "/2018-06-01/runtime"
	a.mux.HandleFunc("GET "+root+"/invocation/next", a.serveNext)
	a.mux.HandleFunc("POST "+root+"/invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) {
		a.finish(w, r, func(body []byte) outcome { return outcome{answer: body} })
	})
	a.mux.HandleFunc("POST "+root+"/invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) {
		a.finish(w, r, func(body []byte) outcome { return outcome{err: readError(body)} })
	})
	a.mux.HandleFunc("POST "+root+"/init/error", a.serveInitError)
	return a
}

func (a *runtimeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// offer gives the program its next event. It has answered the one before.
func (a *runtimeAPI) offer(h *handing) { a.next <- h }

// serveNext blocks until there is an event: a program may wait here for hours.
func (a *runtimeAPI) serveNext(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	if !a.asked {
		a.asked = true
		close(a.ready)
	}
	a.mu.Unlock()
	select {
	case h := <-a.next:
		a.mu.Lock()
		a.current = h
		a.mu.Unlock()
		header := w.Header()
		header.Set("Content-Type", "application/json")
		header.Set("Lambda-Runtime-Aws-Request-Id", h.id)
		header.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(h.deadline.UnixMilli(), 10))
		header.Set("Lambda-Runtime-Invoked-Function-Arn", a.arn)
		header.Set("Lambda-Runtime-Trace-Id", "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0")
		_, _ = w.Write(h.event) // a program that has gone has ended, which its environment sees
	case <-r.Context().Done():
	}
}

// finish takes the program's answer to the event that it has.
func (a *runtimeAPI) finish(w http.ResponseWriter, r *http.Request, read func([]byte) outcome) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPayload+1))
	if err != nil {
		return // the program has gone
	}
	if len(body) > maxPayload {
		refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge")
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current == nil || a.current.id != r.PathValue("id") {
		refuse(w, http.StatusBadRequest, "InvalidRequestID")
		return
	}
	a.current.done <- read(body)
	a.current = nil
	accept(w)
}

func (a *runtimeAPI) serveInitError(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPayload))
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.initError = readError(body)
	accept(w)
}

// failedInit is what the program reported of its start, or nil.
func (a *runtimeAPI) failedInit() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.initError == nil {
		return nil
	}
	return a.initError
}

// readError reads the error that a program reports.
func readError(body []byte) *FunctionError {
	e := &FunctionError{}
	if err := json.Unmarshal(body, e); err != nil || e.Type == "" {
		return &FunctionError{Type: "Unhandled", Message: string(body)}
	}
	return e
}

func accept(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(FunctionError{Type: code, Message: code})
}
