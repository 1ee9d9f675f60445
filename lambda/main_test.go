// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

// endpoint serves a lab's EC2 and Auto Scaling, and knows its connections.
type endpoint struct {
	*httptest.Server
	mu     sync.Mutex
	opened int
	open   map[net.Conn]bool
	change chan struct{}
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	s, err := scenario.Parse([]byte("vpc: {cidr: 10.10.0.0/16}\nsubnets: [{name: nodes, cidr: 10.10.12.0/24, az: us-west-2a}]"))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{open: map[net.Conn]bool{}, change: make(chan struct{}, 1)}
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "/autoscaling/") {
			lab.ScalingFront.ServeHTTP(w, r)
			return
		}
		lab.Front.ServeHTTP(w, r)
	}))
	e.Config.ConnState = func(c net.Conn, s http.ConnState) {
		e.mu.Lock()
		defer e.mu.Unlock()
		switch s {
		case http.StateNew:
			e.opened++
			e.open[c] = true
		case http.StateClosed, http.StateHijacked:
			delete(e.open, c)
		case http.StateActive, http.StateIdle:
		}
		select {
		case e.change <- struct{}{}:
		default:
		}
	}
	e.Start()
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) connections() (opened, open int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.opened, len(e.open)
}

func (e *endpoint) function(log *bytes.Buffer) *function {
	s := parse(func(name string) string {
		return map[string]string{"Owner": "o", "SubnetIds": "subnet-0123456789abcdef0"}[name]
	})
	return wire(s, aws.Config{
		Region: "us-west-2", BaseEndpoint: &e.URL, Credentials: credentials.NewStaticCredentialsProvider("AKLAMBDA", "secret", ""),
	}, newLog(func(string) string { return "" }, log))
}

const leaving = `{"id": "e-1", "detail-type": "EC2 Instance-terminate Lifecycle Action", "source": "aws.autoscaling", "time": "2026-11-22T10:11:12Z",
"detail": {"LifecycleActionToken": "87654321-4321-4321-4321-210987654321", "AutoScalingGroupName": "g", "LifecycleHookName": "h",
"EC2InstanceId": "i-0123456789abcdef0", "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING", "Origin": "AutoScalingGroup", "Destination": "EC2"}}`

func TestNoConnectionOutlivesAnEvent(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	f := e.function(&bytes.Buffer{})
	for range 2 {
		if _, err := f.Invoke(t.Context(), []byte(leaving)); err != nil {
			t.Fatal(err)
		}
		late := time.After(10 * time.Second)
		for opened, open := e.connections(); open > 0 || opened == 0; opened, open = e.connections() {
			select {
			case <-e.change:
			case <-late:
				t.Fatalf("%d of %d connections are open", open, opened)
			}
		}
	}
}

// TestTheLogIsSuchAsTheMetricFilterReads: one object for each line, with the names that Lambda knows, and the request's ID.
func TestTheLogIsSuchAsTheMetricFilterReads(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	var log bytes.Buffer
	f := e.function(&log)
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "request-1"})
	if _, err := f.Invoke(ctx, []byte(leaving)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Invoke(ctx, []byte("{}")); err == nil {
		t.Fatal("no event is no error")
	}
	var results []string
	for text := range strings.Lines(log.String()) {
		var l struct{ Timestamp, Level, Message, Result, RequestID string }
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if _, err := time.Parse(time.RFC3339Nano, l.Timestamp); err != nil || l.Level == "" || l.Message == "" {
			t.Errorf("the line lacks something: %s", text)
		}
		if l.Result != "" {
			results = append(results, l.Result)
			if l.RequestID != "request-1" {
				t.Errorf("whose is it? %s", text)
			}
		}
	}
	if strings.Join(results, " ") != "NONE RETRY" {
		t.Errorf("results %q", results)
	}
}
