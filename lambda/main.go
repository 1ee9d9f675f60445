// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command lambda is the function behind an Auto Scaling group's lifecycle hooks: it gives launching workers their ENIs, empties those
// that end, and sweeps on schedule. EventBridge invokes it; as `bootstrap` it runs on provided.al2023. This door reads the
// environment, wires packages workerhook, workereni and drain together with their hands, and serves the runtime API.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"

	runtime "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/multus-vpc/multus-vpc/internal/asghooks"
	"github.com/multus-vpc/multus-vpc/internal/drain"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/ekstoken"
	"github.com/multus-vpc/multus-vpc/internal/kubedrain"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
	"github.com/multus-vpc/multus-vpc/internal/workerhook"
)

func main() {
	f, err := newFunction(context.Background(), os.Getenv, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lambda:", err)
		os.Exit(1)
	}
	runtime.Start(f)
}

// function is what the runtime invokes. The clients are made once for all of its invocations.
type function struct {
	settings settings
	ec2      *ec2eni.Client
	hooks    *asghooks.Client
	nodes    *kubedrain.Client // nil where workers are not drained
	log      *slog.Logger

	closeIdle func() // connections to AWS
}

func newFunction(ctx context.Context, getenv func(string) string, stdout io.Writer) (*function, error) {
	log := newLog(getenv, stdout)
	sdk, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("configure the AWS SDK: %w", err)
	}
	return wire(parse(getenv), sdk, log), nil
}

func wire(s settings, sdk aws.Config, log *slog.Logger) *function {
	transport := transportOf(sdk)
	sdk.HTTPClient = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	f := &function{
		settings: s, ec2: ec2eni.New(ec2eni.Config{SDK: sdk, Log: log}), hooks: asghooks.New(sdk), log: log, closeIdle: transport.CloseIdleConnections,
	}
	if c := s.drain.Cluster; s.err == nil && s.drain.Nodes {
		f.nodes, f.settings.err = kubedrain.New(kubedrain.Config{
			Endpoint: c.Endpoint, CA: c.CA, Token: ekstoken.New(sdk, c.Name).Token, UserAgent: "multus-vpc-lambda",
		})
	}
	return f
}

// transportOf is the SDK's own transport, with what the environment says of certificates and proxies.
func transportOf(sdk aws.Config) *http.Transport {
	client, ok := sdk.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		client = awshttp.NewBuildableClient()
	}
	return client.GetTransport()
}

// Invoke handles one event. Lambda delivers it again when an error comes back.
//
// No connection outlives it: Lambda freezes the environment between events, for hours, and one that was closed or forgotten
// meanwhile would be found out by the first call, at the worst by its timeout: https://github.com/aws/aws-sdk-js-v3/issues/1196.
func (f *function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	log := f.log
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		log = log.With("requestId", lc.AwsRequestID)
	}
	defer f.closeIdle()
	if f.nodes != nil {
		defer f.nodes.CloseIdle()
	}
	event, err := lifecycle.Parse(payload)
	if err == nil {
		err = f.handler(log).Handle(ctx, event)
	}
	if err != nil {
		log.ErrorContext(ctx, "event not handled", "result", "RETRY", "event", event.ID, "error", err)
		return nil, err
	}
	return nil, nil
}

func (f *function) handler(log *slog.Logger) *workerhook.Handler {
	c := workerhook.Config{Workers: workereni.New(f.settings.workers, f.ec2, log), Log: log}
	if f.settings.err != nil {
		c.Workers = workerhook.Misconfigured{Err: f.settings.err}
	}
	if f.nodes != nil {
		c.Drainer = drain.New(f.settings.drain, f.nodes, log)
	}
	if f.settings.answerHooks {
		c.Hooks = f.hooks
	}
	return workerhook.New(c)
}

// newLog writes one JSON object for each line, whatever the function's log format is: the metric filter on abandoned workers
// reads them.
func newLog(getenv func(string) string, out io.Writer) *slog.Logger {
	level := slog.LevelInfo
	if l := getenv("AWS_LAMBDA_LOG_LEVEL"); l != "" {
		_ = level.UnmarshalText([]byte(l)) // what Lambda knows beside slog's, TRACE and FATAL, stays at info
	}
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: lambdacontext.ReplaceAttr}))
}
