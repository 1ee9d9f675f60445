// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
)

func TestConnectionAheadIsUsedOnce(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	start(t, socket, &agentapi.Server{}, h)
	client := agentapi.Client{Socket: socket}
	client.Ahead = client.Connect(t.Context())
	if client.Ahead == nil {
		t.Fatal("no connection")
	}
	for range 2 {
		if _, err := client.Call(within(t, enough), status); err != nil {
			t.Fatal(err)
		}
	}
	client.Ahead.Close()
	if got := len(h.requests()); got != 2 {
		t.Errorf("the agent was asked %d times", got)
	}
}

func TestConnectionToAnAgentThatLeftIsMadeAgain(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	stop := start(t, socket, &agentapi.Server{}, h)
	client := agentapi.Client{Socket: socket}
	client.Ahead = client.Connect(t.Context())
	stop()
	start(t, socket, &agentapi.Server{}, h)
	if _, err := client.Call(within(t, enough), status); err != nil || client.Ahead == nil {
		t.Error(err)
	}
}

func TestWithoutAnAgentThereIsNoConnectionAhead(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	client := agentapi.Client{Socket: socket}
	if client.Ahead = client.Connect(t.Context()); client.Ahead != nil {
		t.Error("a connection to nobody")
	}
	client.Ahead.Close()
	start(t, socket, &agentapi.Server{}, h)
	if _, err := client.Call(within(t, enough), status); err != nil {
		t.Error(err)
	}
}

// lines is a log that tests may read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func TestConnectionThatWasNotUsedIsNoBadRequest(t *testing.T) {
	socket, h, log := socketIn(t), newHandler(), &lines{}
	stop := start(t, socket, &agentapi.Server{Connections: 1, Log: slog.New(slog.NewTextHandler(log, nil))}, h)
	client := agentapi.Client{Socket: socket}
	client.Connect(t.Context()).Close()
	// The only place is free again when this is answered.
	if _, err := client.Call(within(t, enough), status); err != nil {
		t.Error(err)
	}
	stop()
	if said := log.text.String(); said != "" {
		t.Errorf("the agent complains: %s", said)
	}
}
