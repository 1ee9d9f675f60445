// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// measured counts what is read from it, at most step bytes at a time.
type measured struct {
	r       io.Reader
	step, n int
}

func (m *measured) Read(b []byte) (int, error) {
	n, err := m.r.Read(b[:min(len(b), m.step)])
	m.n += n
	return n, err
}

// requestSeeds are messages to the agent, and whether each is a request.
func requestSeeds() map[string]bool {
	return map[string]bool{
		`{"version":1,"method":"add","timeoutMillis":20000,"attachment":{"containerID":"c1","ifName":"net1","network":"n6",` +
			`"pod":{"namespace":"core","name":"upf-0"},"netns":{"path":"/run/netns/a","cookie":4097}},` +
			`"query":{"selector":{"deviceIndex":1,"subnetTags":{"multus":"1"}},"families":["ipv4"],"needLink":true,` +
			`"ranges":["10.10.1.64/28"],"requested":["10.10.1.70"],"sticky":{"statefulSet":"upf"}}}`: true,
		`{"version":1,"method":"check","attachment":{"containerID":"c1","ifName":"net1"},"addresses":["10.10.1.70/24"]}`:          true,
		`{"version":1,"method":"gc","network":"n6","valid":[{"containerID":"c1","ifName":"net1"}]}`:                               true,
		`{"version":1,"method":"claim","interface":"net1","addresses":["10.10.1.80/32","2001:db8::80/128"],"onConflict":"never"}`: true,
		`{"version":1,"method":"status"}`:                       true,
		`{"version":2,"method":"later","unheard":[1,{"of":2}]}`: true, // a newer plugin's; the version is judged elsewhere
		`{"timeoutMillis":9223372036854775807}`:                 true,
		`null`:                                                  true,
		`{"addresses":[""]}`:                                    false,
		`{"addresses":[null]}`:                                  false,
		`{"query":{"requested":[""]}}`:                          false,
		`{"query":{"ranges":[null]}}`:                           false,
		`{"query":{"exclude":["10.10.1.9-10.10.1.1"]}}`:         false,
		`{"attachment":"c1"}`:                                   false,
		`{"version":1,`:                                         false,
		`[]`:                                                    false,
		``:                                                      false,
	}
}

func TestSeedsOfRequests(t *testing.T) {
	for message, want := range requestSeeds() {
		if _, err := readRequest(bytes.NewReader([]byte(message)), maxRequest); (err == nil) != want {
			t.Errorf("%s: error %v, want a request: %t", message, err, want)
		}
	}
}

// TestVersionIsJudgedBeforeTheRest: a plugin that is too new is told so, whatever its requests look like.
func TestVersionIsJudgedBeforeTheRest(t *testing.T) {
	for message, want := range map[string]string{
		`{"attachment":"c1","version":9}`: `"code":100`,
		`{"attachment":"c1","version":1}`: `"code":6`,
		`{"attachment":"c1"}`:             `"code":6`,
	} {
		client, server := net.Pipe()
		done := make(chan bool, 1)
		go func() {
			_, ok := (&Server{}).request(t.Context(), server)
			server.Close()
			done <- ok
		}()
		if _, err := client.Write([]byte(message)); err != nil {
			t.Fatal(err)
		}
		reply, err := io.ReadAll(client)
		if err != nil || <-done || !bytes.Contains(reply, []byte(want)) {
			t.Errorf("%s is answered with %s, %v; want %s", message, reply, err, want)
		}
	}
}

// FuzzRequest holds that the agent never reads more than its bound, and that what it accepts has only addresses that
// are some, and reads the same when a plugin writes it.
func FuzzRequest(f *testing.F) {
	for message := range requestSeeds() {
		f.Add([]byte(message))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		from := &measured{r: bytes.NewReader(message), step: len(message) + 1}
		req, err := readRequest(from, maxPodRequest)
		if from.n > maxPodRequest {
			t.Errorf("read %d bytes, more than %d", from.n, maxPodRequest)
		}
		if err != nil {
			return
		}
		again, err := readRequest(bytes.NewReader(encode(req)), maxRequest)
		if err != nil {
			t.Fatalf("%s is accepted, and refused when it is written as %s: %v", message, encode(req), err)
		}
		if diff := cmp.Diff(req, again, comparable); diff != "" {
			t.Errorf("request (-read +written and read):\n%s", diff)
		}
	})
}

// responseSeeds are what an agent may send, and what of it is the response; empty for none.
func responseSeeds() map[string]string {
	return map[string]string{
		"{\"version\":1}\n": "{\"version\":1}\n",
		"{\"version\":1}":   "{\"version\":1}",
		"{\n}\n":            "{\n}\n",
		"{\"a\":":           "",
		"hello\n":           "",
		"{} {}\n":           "",
		" \n":               "",
		"":                  "",
	}
}

func TestSeedsOfResponses(t *testing.T) {
	for sent, want := range responseSeeds() {
		if got, err := receive(bytes.NewReader([]byte(sent))); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: received %q, error %v, want %q", sent, got, err, want)
		}
	}
}

// FuzzReceive holds that a plugin takes a whole JSON value or an error from whatever comes, however it is cut, and never
// more than its bound.
func FuzzReceive(f *testing.F) {
	for sent := range responseSeeds() {
		f.Add([]byte(sent), byte(0))
		f.Add([]byte(sent), byte(255))
	}
	f.Fuzz(func(t *testing.T, sent []byte, step byte) {
		from := &measured{r: bytes.NewReader(sent), step: int(step) + 1}
		got, err := receive(from)
		if from.n > 2*maxResponse {
			t.Errorf("read %d bytes, the bound is %d", from.n, maxResponse)
		}
		if err != nil {
			if got != nil {
				t.Errorf("received %q and %v", got, err)
			}
			return
		}
		if !json.Valid(got) || !bytes.HasPrefix(sent, got) {
			t.Errorf("received %q of %q", got, sent)
		}
		_, _ = decode(got) // any value: it must not panic, and FuzzDecode says what it must say
	})
}
