// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package front

import (
	"cmp"
	"net/http"
)

// InProcess mounts a handler as an [http.RoundTripper]: requests are answered in the caller's goroutine, without a
// network. It is how the lab's other services stand beside [Front.RoundTripper].
func InProcess(h http.Handler) http.RoundTripper { return handlerTripper{h} }

type handlerTripper struct{ handler http.Handler }

func (t handlerTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	return inProcess(req, func(r *http.Request) (*reply, error) {
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		answer := newReply()
		t.handler.ServeHTTP(answer, r)
		return answer, nil
	})
}

// inProcess turns a client's request into a server's, and the answer back.
func inProcess(req *http.Request, answer func(*http.Request) (*reply, error)) (*http.Response, error) {
	if req.Body != nil {
		defer func() { _ = req.Body.Close() }() // what a RoundTripper owes its caller
	}
	r := req.Clone(req.Context())
	r.RequestURI = req.URL.RequestURI()
	r.Host = cmp.Or(req.Host, req.URL.Host)
	r.RemoteAddr = "in-process"
	if r.Body == nil {
		r.Body = http.NoBody
	}
	a, err := answer(r)
	if err != nil {
		return nil, err
	}
	return a.response(req), nil
}
