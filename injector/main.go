// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command injector is a mutating admission webhook that gives pods the init container or sidecar they ask for, so that no chart has
// to change. This door reads the configuration, wires the decisions of internal/inject to the Kubernetes API and to the
// admission protocol, keeps the webhook's certificate in order, serves and shuts down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

	"github.com/multus-vpc/multus-vpc/internal/inject"
	"github.com/multus-vpc/multus-vpc/internal/kubeinject"
	"github.com/multus-vpc/multus-vpc/internal/webhook"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the injector's life. Exit codes: 0 after a signal, 1 when it cannot work, 2 for a bad configuration.
func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) int {
	o, err := parseOptions(args, getenv, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "injector: %s\nhint: injector -h lists the flags and their variables\n", strings.ReplaceAll(err.Error(), "\n", "\ninjector: "))
		return 2
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: o.logLevel}))
	if err := serve(ctx, o, log); err != nil {
		log.Error("injector stopped", "error", err)
		return 1
	}
	return 0
}

// serve opens everything, works until ctx ends, and closes everything.
func serve(ctx context.Context, o options, log *slog.Logger) error {
	o.kube.UserAgent = "multus-vpc-injector/" + version()
	access, err := o.kube.Access()
	if err != nil {
		return err
	}
	client, err := kubeinject.New(access)
	if err != nil {
		return err
	}
	certificate := newKeeper(o, client, log)
	m := newMetrics(certificate)
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("serve the webhook on --listen %s: %w", o.listen, err)
	}
	metricsLn, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.metricsAddress)
	if err != nil {
		return errors.Join(fmt.Errorf("serve metrics on --metrics-address %s: %w", o.metricsAddress, err), ln.Close())
	}
	injector := &inject.Injector{Config: o.inject, Cluster: client}
	handler := http.NewServeMux()
	handler.Handle("/inject", &webhook.Handler{Review: review(injector), Log: log, Observe: m.observe})

	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var parts sync.WaitGroup
	part := func(f func(context.Context) error) {
		parts.Go(func() {
			if err := f(running); err != nil {
				fail(err)
			}
		})
	}
	// Metrics and probes answer to the end, and the certificate is looked after as long as it is shown.
	outlast, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	var lasting sync.WaitGroup
	lasting.Go(func() { certificate.Run(outlast) })
	lasting.Go(func() {
		if err := m.serve(outlast, ctx, metricsLn); err != nil {
			fail(fmt.Errorf("serve metrics: %w", err))
		}
	})
	part(func(ctx context.Context) error {
		return webhook.Serve(ctx, ln, certificate.Certificate, handler, o.linger, log)
	})
	log.Info("listening", "address", ln.Addr().String(), "metrics", metricsLn.Addr().String())
	parts.Wait()
	done()
	lasting.Wait()
	if cause := context.Cause(running); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// review puts decisions into the words of the admission protocol.
func review(i *inject.Injector) webhook.Review {
	return func(ctx context.Context, namespace string, pod []byte) (webhook.Answer, error) {
		out, err := i.Review(ctx, namespace, pod)
		answer := webhook.Answer{Mode: string(out.Mode), Warnings: out.Warnings, Refused: out.Refused}
		if len(out.Patch) > 0 {
			answer.Patch = out.Patch
		}
		return answer, err
	}
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
