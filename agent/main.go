// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command agent is the node agent, one to a worker: the only caller of EC2 on the way of a CNI call. This door reads
// the configuration, opens ledger and sockets, wires the pool to EC2, metadata, kernel and ledger, serves plugins and pods,
// and shuts down. Which address goes to whom is decided in internal/pool, what a pod may claim in internal/guard.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/guard"
	"github.com/multus-vpc/multus-vpc/internal/imds"
	"github.com/multus-vpc/multus-vpc/internal/ledger"
	"github.com/multus-vpc/multus-vpc/internal/link"
	"github.com/multus-vpc/multus-vpc/internal/pool"
	"github.com/multus-vpc/multus-vpc/internal/tombstone"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

func main() {
	tune(os.Getenv)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stderr)
	stop()
	os.Exit(code)
}

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// run is the agent's life. Exit codes: 0 after a signal, 1 when it cannot work, 2 for a bad configuration.
func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) int {
	o, err := parseOptions(args, getenv, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "agent: %s\nhint: agent -h lists the flags and their variables\n", strings.ReplaceAll(err.Error(), "\n", "\nagent: "))
		return 2
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: logLevels[o.logLevel]}))
	o.pool.Log = log
	if err := serve(ctx, o, log); err != nil {
		log.Error("agent stopped", "error", err)
		return 1
	}
	return 0
}

// serve shows how the agent fares from the start, for it may wait long for the metadata, and works until ctx ends.
func serve(ctx context.Context, o options, log *slog.Logger) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	m := newMetrics()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	if o.metricsAddress != "" {
		wg.Go(func() {
			if err := m.serve(ctx, o.metricsAddress); err != nil {
				cancel(fmt.Errorf("serve metrics on --metrics-address %s: %w", o.metricsAddress, err))
			}
		})
	}
	return serveNode(ctx, o, log, m)
}

// serveNode opens everything, works until ctx ends, and closes everything.
func serveNode(ctx context.Context, o options, log *slog.Logger, m *metrics) (err error) {
	sdk, err := config.LoadDefaultConfig(ctx) // the Region may come with the instance: the metadata is waited for
	if err != nil {
		return fmt.Errorf("configure the AWS SDK: %w", err)
	}
	metadata := imds.New(imds.Config{SDK: sdk})
	instance, ok := whoAmI(ctx, metadata, log)
	if !ok {
		return reason(ctx)
	}
	if sdk.Region == "" {
		sdk.Region = instance.Region
	}
	boot, err := tombstone.Now()
	if err != nil {
		return fmt.Errorf("read the boot ID: %w", err)
	}
	book, found, err := ledger.Open(o.stateDir, ledger.Identity{InstanceID: string(instance.ID), BootID: boot.BootID})
	if errors.Is(err, ledger.ErrLocked) {
		return fmt.Errorf("another agent works with %s: %w", o.stateDir, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	report(log, found)
	client, err := api(o.kube, log)
	if err != nil {
		return err
	}

	o.pool.BootID, o.pool.Uptime = boot.BootID, uptime
	m.wire(&o.pool)
	events := newHerald(client, o.nodeName, log)
	o.pool.Tell = events.tell
	ec2 := ec2eni.New(ec2eni.Config{SDK: sdk, Log: log, Observe: m.call})
	ports := pool.Ports{
		EC2:        ec2,
		Metadata:   metadata,
		Host:       host{log},
		Namespaces: namespaces{},
		Ledger:     records{book},
		Tombstones: tombstones{tombstone.Dir(filepath.Join(filepath.Dir(o.socket), agentapi.TombstoneDir))},
	}
	o.guard.Log = log
	behind := guard.Ports{Namespaces: namespaces{}}
	if client != nil { // a nil client is no nil interface
		ports.Pods, behind.Pods = client, networks{client, o.nodeName}
	}
	node := &worker{Node: pool.New(o.pool, instance, ports, entries(found.Entries), found.Rebooted), await: o.awaitInterfaces, events: events}
	if len(o.interfaces.Interfaces) > 0 {
		m.expect(ec2eni.WorkerActions())
		node.keeper = workereni.NewKeeper(workereni.New(o.interfaces, ec2, log), instance.ID)
	}
	behind.Node = claims{node.Node}

	m.gauges.node.Store(node)
	ln, err := agentapi.Listen(o.socket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", o.socket, err)
	}
	if err := install(o.cniBinDir); err != nil {
		return errors.Join(err, ln.Close())
	}
	w := &watchers{node: node.Node, ports: behind, log: log, tell: events.tell, running: map[attachment.Key]*watcher{}}
	if client != nil && o.nodeName != "" {
		node.unveil = func(ctx context.Context) (bool, error) { return client.RemoveTaint(ctx, o.nodeName, startupTaint) }
	}
	return work(ctx, o, log, node, guard.New(o.guard, behind), w, m, ln)
}

// work runs what runs at the same time, and ends all of it when one fails or ctx ends.
func work(ctx context.Context, o options, log *slog.Logger, node *worker, g *guard.Guard, w *watchers, m *metrics, ln net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	part := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	part("pool", func(ctx context.Context) error { node.Run(ctx); return nil })
	part("interfaces", node.keep)
	part("taint", func(ctx context.Context) error { node.welcome(ctx, log); return nil })
	part("events", func(ctx context.Context) error { node.events.run(ctx); return nil })
	part("watch links", func(ctx context.Context) error { return link.Watch(ctx, node.LinksChanged) })
	part("watch pods", func(ctx context.Context) error { w.run(ctx); return nil })
	part("serve plugins", func(ctx context.Context) error {
		return (&agentapi.Server{Log: log}).Serve(ctx, ln, handler{node: node, metrics: m, version: version()})
	})
	part("serve pods", func(ctx context.Context) error {
		up := func() { log.Info("listening for pods", "socket", o.syncSocket) }
		(&agentapi.PodServer{Path: o.syncSocket, Log: log, Up: up}).Serve(ctx, podHandler{g, m})
		return nil
	})
	log.Info("listening", "socket", o.socket)
	wg.Wait()
	return reason(ctx)
}

// reason is why ctx ended, nil for a signal.
func reason(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// whoAmI asks the instance metadata until it answers: an agent that does not know its instance can do nothing. False when
// ctx ended first.
func whoAmI(ctx context.Context, metadata *imds.Client, log *slog.Logger) (eni.Instance, bool) {
	const pauseCap = 10 * time.Second
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, pauseCap) {
		instance, err := metadata.Instance(ctx)
		if err == nil {
			return instance, true
		}
		log.Warn("the instance metadata does not answer; the agent needs IMDSv2, and a hop limit of 2 when it is not in the host's network", "error", err)
		select {
		case <-time.After(rand.N(pause)):
		case <-ctx.Done():
			return eni.Instance{}, false
		}
	}
}

// report tells what the ledger went through.
func report(log *slog.Logger, found ledger.Opened) {
	if found.SetAside != "" {
		log.Warn("the ledger was another instance's and is set aside", "file", found.SetAside)
	}
	if found.Damaged > 0 {
		log.Error("ledger records could not be read; what they said is found again in EC2 and in the namespaces", "records", found.Damaged, "copy", found.DamagedCopy)
	}
	if found.Rebooted {
		log.Info("first start since the worker booted")
	}
}

// uptime is the clock of the tombstones: what no change of the wall clock moves.
func uptime() time.Duration {
	up, err := tombstone.Uptime()
	if err != nil {
		return 0 // it could be read a moment ago; an allocation of uptime 0 is older than any tombstone
	}
	return up
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
