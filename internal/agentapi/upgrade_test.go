// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi_test

import (
	"context"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
)

func TestRequestThatFailsBecauseTheAgentEndsGoesToTheNext(t *testing.T) {
	socket, old := socketIn(t), newHandler()
	taken := make(chan struct{})
	old.answer = func(ctx context.Context, _ agentapi.Request) agentapi.Response {
		close(taken)
		<-ctx.Done()
		return agentapi.Response{Error: &agentapi.Error{Code: 11, Message: "nothing came free in time"}}
	}
	ln, err := agentapi.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, upgrade := context.WithCancel(t.Context())
	ended, answered := make(chan error, 1), make(chan error, 1)
	go func() { ended <- (&agentapi.Server{}).Serve(ctx, ln, old) }()
	go func() {
		_, callErr := agentapi.Client{Socket: socket}.Call(within(t, enough), status)
		answered <- callErr
	}()
	<-taken
	upgrade()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	start(t, socket, &agentapi.Server{}, newHandler())
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
