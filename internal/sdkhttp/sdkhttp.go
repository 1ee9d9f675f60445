// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package sdkhttp keeps the AWS SDK from closing connections on which an answer is still under way. Clients of AWS services that send
// bodies are made with [Whole].
//
// The SDK closes a request's body when the answer's headers are there. net/http's writer may at that moment be between the body's last
// byte and a last look for more, and takes what the closed body says then, which is io.EOF, for a failure to send the request: it closes
// the connection under whoever reads the answer, whose error is "use of closed network connection". EC2 has done what it was asked, and
// we do not know it. Between the two is no more than a few instructions, so it takes a near endpoint, or a process that is short of
// processor time. https://github.com/aws/aws-sdk-go-v2/issues/2737
package sdkhttp

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// Client is what the SDK's clients send requests with.
type Client interface {
	Do(*http.Request) (*http.Response, error)
}

// Whole returns a client that sends bodies out of memory of its own, which nobody closes. They are small: what EC2 and Auto Scaling are
// asked. A request then also leaves as one packet, where headers and body were two.
func Whole(next Client) Client { return whole{next} }

type whole struct{ next Client }

func (w whole) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return w.next.Do(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read the request's body: %w", err)
	}
	r = r.WithContext(r.Context()) // a copy: the caller's request keeps its body
	r.Body = io.NopCloser(bytes.NewReader(body))
	return w.next.Do(r)
}
