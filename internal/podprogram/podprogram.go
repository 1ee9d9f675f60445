// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package podprogram is what init container and sidecar share: one program that runs beside a pod's own containers and has EC2 know
// the pod's addresses, once or for as long as the pod lives. It reads flags and environment, wires the syncer to the pod's
// network namespace and to EC2, and says what happened: by exit code, termination message, log, metrics and probes.
package podprogram

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/imds"
	"github.com/multus-vpc/multus-vpc/internal/podlink"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitFailed  = 1 // an address cannot be registered, or the sidecar says that it is not ready
	ExitUsage   = 2
	ExitTimeout = 3 // interfaces or EC2 were not there in time
)

const readyPath = "/readyz"

// Program is one call of a program.
type Program struct {
	Name   string
	Mode   Mode // unless an argument says otherwise
	Args   []string
	Getenv func(string) string
	Stdout io.Writer
	Stderr io.Writer

	// The outside, unless a test says otherwise: this process's network namespace, and the SDK's default configuration.
	pod podsync.Pod
	sdk func(context.Context) (aws.Config, error)
}

// Run does what the program is for, until it is done or ctx ends, and returns its exit code.
func (p Program) Run(ctx context.Context) int {
	o, err := parse(p.Name, p.Mode, p.Args, p.Getenv, p.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return ExitOK
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, strings.ReplaceAll(err.Error(), "\n", "\n"+p.Name+": "))
		return ExitUsage
	}
	if o.mode == Ask {
		return p.ask(ctx, o)
	}
	log := slog.New(slog.NewJSONHandler(p.Stderr, &slog.HandlerOptions{Level: o.logLevel}))
	o.sync.Log = log
	m := newMetrics()
	o.sync.Changed, o.sync.Claimed = m.changed, m.claimed
	vpc, err := p.registrar(ctx, &o, m, log)
	if err != nil {
		return p.fail(o, log, err)
	}
	syncer := podsync.New(o.sync, cmp.Or[podsync.Pod](p.pod, podlink.Namespace("")), vpc)
	if o.mode == Once {
		err = once(ctx, o, syncer)
	} else {
		err = stay(ctx, o, syncer, m)
	}
	if err != nil {
		return p.fail(o, log, err)
	}
	log.Info("done", "addresses", len(syncer.Report().Addresses))
	return ExitOK
}

// maxTerminationMessage is what Kubernetes keeps of it, in bytes; of a longer one it would keep the end.
// https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
const maxTerminationMessage = 4096

// fail tells of an error where Kubernetes shows it, and gives the exit code.
// https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
func (p Program) fail(o options, log *slog.Logger, err error) int {
	log.Error("failed", "error", err)
	if f, openErr := os.OpenFile(o.terminationLog, os.O_WRONLY|os.O_TRUNC, 0); openErr == nil { // it is there in a container only
		message := fmt.Sprintf("%s: %v\n", p.Name, err)
		_, writeErr := f.WriteString(message[:min(len(message), maxTerminationMessage)])
		if writeErr = errors.Join(writeErr, f.Close()); writeErr != nil {
			log.Warn("termination message not written", "error", writeErr)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return ExitTimeout
	}
	return ExitFailed
}

// registrar is the way to EC2, and what follows from it for the syncer.
func (p Program) registrar(ctx context.Context, o *options, m *metrics, log *slog.Logger) (podsync.Registrar, error) {
	if o.via == ViaAgent || o.via == ViaAuto && mounted(o.socket) {
		log.Info("the node agent registers this pod's addresses", "socket", o.socket)
		o.sync.Grace = 0 // the agent has its own
		return newBySocket(agentapi.Client{Socket: o.socket, Timeout: answerTimeout}), nil
	}
	// Only the agent knows whether a neighbour on this ENI carries a floating address that goes from here.
	o.sync.KeepFloating = true
	o.announcer = newAnnouncer(log)
	o.sync.Moved = o.announcer.moved
	return p.direct(ctx, o, m, log)
}

// mounted reports whether the folder of the agent's socket is there. The socket itself may be away while the agent restarts.
func mounted(socket string) bool {
	info, err := os.Stat(filepath.Dir(socket))
	return err == nil && info.IsDir()
}

// direct is EC2 itself.
func (p Program) direct(ctx context.Context, o *options, m *metrics, log *slog.Logger) (podsync.Registrar, error) {
	configure := p.sdk
	if configure == nil {
		configure = func(ctx context.Context) (aws.Config, error) { return config.LoadDefaultConfig(ctx) }
	}
	sdk, err := configure(ctx)
	if err != nil {
		return nil, fmt.Errorf("configure the AWS SDK: %w", err)
	}
	metadata := imds.New(imds.Config{SDK: sdk})
	instance, err := metadata.Instance(ctx)
	reached := err == nil
	if reached && sdk.Region == "" {
		sdk.Region = instance.Region
	}
	if sdk.Region == "" {
		return nil, fmt.Errorf("no Region: set AWS_REGION, for pods do not reach the instance metadata (%w)", err)
	}
	calls := ec2eni.New(ec2eni.Config{SDK: sdk, Log: log, Observe: m.call})
	if reached {
		return podsync.NewDirect(calls, byMetadata{metadata}), nil
	}
	log.Info("the instance metadata cannot be reached: ENIs are found by their MAC in EC2", "node", o.nodeAddress)
	return podsync.NewDirect(calls, byEC2{calls, o.nodeAddress}), nil
}

// once registers what is there, within the timeout.
func once(ctx context.Context, o options, s *podsync.Syncer) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err := s.Until(ctx, o.promise)
	if err == nil && len(s.Report().Addresses) == 0 {
		return errors.New("the pod has no ipvlan interface with an address: does it have the annotation k8s.v1.cni.cncf.io/networks, and is Multus ready on this node?")
	}
	return err
}

// stay keeps addresses registered until ctx ends, and gives them back within the grace.
func stay(ctx context.Context, o options, s *podsync.Syncer, m *metrics) error {
	if o.announcer != nil {
		var announcing sync.WaitGroup
		live, stop := context.WithCancel(context.WithoutCancel(ctx)) // what is given back in the end is told as well
		announcing.Go(func() { o.announcer.run(live) })
		defer announcing.Wait()
		defer stop()
	}
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	part := func(f func(context.Context) error) {
		parts.Go(func() {
			if err := f(running); err != nil {
				cancel(err)
			}
		})
	}
	part(s.Run)
	if o.metricsAddress != "" {
		part(func(ctx context.Context) error { return m.serve(ctx, o.metricsAddress, o.promise) })
	}
	parts.Wait()
	if ctx.Err() == nil {
		return context.Cause(running)
	}
	leaving, done := context.WithTimeout(context.WithoutCancel(ctx), o.grace)
	defer done()
	return s.Leave(leaving)
}

// ask asks the pod's sidecar whether all is registered, once or until it is or the wait is over.
func (p Program) ask(ctx context.Context, o options) int {
	ctx, cancel := context.WithTimeout(ctx, o.wait+patience)
	defer cancel()
	again := time.NewTicker(askInterval)
	defer again.Stop()
	for began := time.Now(); ; {
		err := ready(ctx, o.metricsAddress)
		if err == nil {
			fmt.Fprintln(p.Stdout, "ready")
			return ExitOK
		}
		if time.Since(began) >= o.wait {
			fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, err)
			return ExitFailed
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, err)
			return ExitFailed
		}
	}
}

const (
	// patience is less than the 3 s that a probe has.
	patience = 2 * time.Second
	// askInterval is how often ready asks while it waits: a pod's start is delayed by half of it.
	askInterval = 200 * time.Millisecond
)

// ready is nil when the sidecar at the address says that all is registered.
func ready(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+readyPath, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	const enough = 4 << 10
	text, err := io.ReadAll(io.LimitReader(resp.Body, enough))
	if err != nil {
		return fmt.Errorf("read the sidecar's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", strings.TrimSpace(string(text)))
	}
	return nil
}
