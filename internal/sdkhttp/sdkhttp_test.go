// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sdkhttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/multus-vpc/multus-vpc/internal/sdkhttp"
)

// sdkBody is a request's body as the SDK makes it: once closed it is at its end, by an error even where its reader writes itself.
type sdkBody struct {
	text   *bytes.Reader
	closed chan struct{}
	once   sync.Once
}

func newBody(text string) *sdkBody {
	return &sdkBody{text: bytes.NewReader([]byte(text)), closed: make(chan struct{})}
}

func (b *sdkBody) Read(p []byte) (int, error) {
	select {
	case <-b.closed:
		return 0, io.EOF
	default:
		return b.text.Read(p)
	}
}

func (b *sdkBody) WriteTo(w io.Writer) (int64, error) {
	select {
	case <-b.closed:
		return 0, io.EOF
	default:
		return b.text.WriteTo(w)
	}
}

func (b *sdkBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// slowWriter is a connection whose writer gets no processor time from when it has sent the end of a body until the body is closed.
type slowWriter struct {
	net.Conn
	end  string
	body *sdkBody
}

func (c slowWriter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if strings.HasSuffix(string(p), c.end) {
		<-c.body.closed
	}
	return n, err
}

// TestAnswerOutlivesItsRequest: the request's end neither breaks the connection on which the answer is being read nor costs it its next
// use.
func TestAnswerOutlivesItsRequest(t *testing.T) {
	t.Parallel()
	const question, answer = "Action=DescribeNetworkInterfaces", "<DescribeNetworkInterfacesResponse/>"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err != nil || string(got) != question {
			t.Errorf("the question is %q, %v", got, err)
		}
		_, _ = io.WriteString(w, answer[:10])
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, answer[10:])
	}))
	t.Cleanup(server.Close)
	body, dials := newBody(question), 0
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return slowWriter{conn, question, body}, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := sdkhttp.Whole(&http.Client{Transport: transport})
	for range 2 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = int64(len(question))
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err = r.Body.Close(); err != nil { // as the SDK does
			t.Error(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || string(got) != answer {
			t.Errorf("the answer is %q, %v", got, err)
		}
		body = newBody(question)
	}
	if dials != 1 {
		t.Errorf("%d connections for two requests", dials)
	}
}

// TestUnreadableBodyIsNotSent: nor is half of it.
func TestUnreadableBodyIsNotSent(t *testing.T) {
	t.Parallel()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://ec2.invalid", io.MultiReader(strings.NewReader("Action="), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = sdkhttp.Whole(nobody{t}).Do(r)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

// nobody is a client that is not to be asked.
type nobody struct{ t *testing.T }

func (n nobody) Do(*http.Request) (*http.Response, error) {
	n.t.Error("the request was sent")
	return nil, http.ErrHandlerTimeout
}
