// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package lab runs a scenario on this machine: its APIs on sockets and, by [Up], its packets in network namespaces that
// follow the state of the VPC. `vpclab up`, the demo and tests of whole nodes use it; tests that need no kernel take the
// services out of package scenario instead. The VPC's rules are package vpc's, the data path is package fabric's: this
// package only keeps them in step.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/fabric"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

// Where the services listen inside each worker's network namespace. The first is where every SDK looks for instance
// metadata by itself; AWS_ENDPOINT_URL_EC2 must name the second.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
var (
	IMDSInWorker = netip.MustParseAddrPort("169.254.169.254:80")
	EC2InWorker  = netip.MustParseAddrPort("169.254.169.253:8080")
)

// Config says where a lab appears. The zero Config is usable.
type Config struct {
	// Listen is host:port of the EC2 API outside of the namespaces; Auto Scaling, CloudFormation and the metadata of each
	// instance take a free port of the same host each. Default 127.0.0.1:0.
	Listen string
	// Buckets are folders by the names of S3 buckets: there the packages of functions lie that stacks make.
	Buckets map[string]string
	// Prefix starts the names of the network namespaces; default vpclab-<process ID>.
	Prefix string
	// Log gets what goes wrong while the lab runs without stopping it; default: nowhere.
	Log io.Writer
}

// Running is a lab that runs. Its fields do not change, and describe the scenario's own instances.
type Running struct {
	*scenario.Lab
	Fabric *fabric.Fabric // nil for [Serve]

	// Stacks deploys templates into the lab. Inert has what in them does nothing here.
	Stacks *cloudformation.Engine
	Inert  *cloudformation.Inert

	EC2URL            string
	AutoScalingURL    string
	CloudFormationURL string
	IMDSURL           map[string]string // by the name of the instance
	Netns             map[string]string // paths by the name of the instance, and "vpc"; nil for [Serve]

	stop   context.CancelFunc
	group  *errgroup.Group
	ended  <-chan struct{}
	follow *follower

	buckets        *lambda.Buckets
	cloudFormation http.Handler
}

// Serve serves the scenario's APIs, without forwarding packets. The caller closes what it returns; ctx bounds the start
// only.
func Serve(ctx context.Context, s *scenario.Scenario, cfg Config) (*Running, error) {
	return start(ctx, s, cfg, false)
}

// Up is [Serve] and the fabric: a network namespace for the VPC and one per instance, in which the metadata and the EC2
// API listen at [IMDSInWorker] and [EC2InWorker]. When it returns, everything that the scenario describes is in place.
// From then on the namespaces follow the VPC, one route lag behind: addresses, ENIs, instances that are launched and
// terminated. It needs root.
func Up(ctx context.Context, s *scenario.Scenario, cfg Config) (*Running, error) {
	return start(ctx, s, cfg, true)
}

func start(ctx context.Context, s *scenario.Scenario, cfg Config, withFabric bool) (_ *Running, err error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "vpclab-" + strconv.Itoa(os.Getpid())
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	built, err := scenario.Build(s, nil)
	if err != nil {
		return nil, err
	}
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, live := errgroup.WithContext(live)
	r := &Running{Lab: built, IMDSURL: map[string]string{}, stop: stop, group: group, ended: live.Done()}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	logger := log.New(cfg.Log, "vpclab: ", 0)
	r.mountStacks(live, cfg.Buckets)
	if err := r.serveOutside(ctx, live, cfg.Listen, logger); err != nil {
		return nil, err
	}
	if withFabric {
		if err := r.raiseFabric(ctx, live, cfg.Prefix, logger); err != nil {
			return nil, err
		}
	}
	r.Functions.SetEnvironment(map[string]string{
		"AWS_ENDPOINT_URL_EC2": r.EC2URL, "AWS_ENDPOINT_URL_AUTO_SCALING": r.AutoScalingURL,
	})
	r.group.Go(func() error {
		r.Lab.Run(live)
		return nil
	})
	return r, nil
}

// serveOutside opens the sockets that a user of this machine talks to.
func (r *Running) serveOutside(ctx, live context.Context, listen string, logger *log.Logger) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("listen address %q: %w", listen, err)
	}
	open := func(address string) (net.Listener, error) { return new(net.ListenConfig).Listen(ctx, "tcp", address) }
	l, err := open(listen)
	if err != nil {
		return err
	}
	serve(live, r.group, l, r.Front, logger)
	r.EC2URL = "http://" + l.Addr().String()
	if l, err = open(net.JoinHostPort(host, "0")); err != nil {
		return err
	}
	serve(live, r.group, l, r.ScalingFront, logger)
	r.AutoScalingURL = "http://" + l.Addr().String()
	if l, err = open(net.JoinHostPort(host, "0")); err != nil {
		return err
	}
	serve(live, r.group, l, r.cloudFormation, logger)
	r.CloudFormationURL = "http://" + l.Addr().String()
	for _, name := range slices.Sorted(maps.Keys(r.Metadata)) {
		l, err := open(net.JoinHostPort(host, "0"))
		if err != nil {
			return err
		}
		serve(live, r.group, l, r.Metadata[name], logger)
		r.IMDSURL[name] = "http://" + l.Addr().String()
	}
	return nil
}

// raiseFabric makes the namespaces and starts to follow the VPC.
func (r *Running) raiseFabric(ctx, live context.Context, prefix string, logger *log.Logger) (err error) {
	if r.Fabric, err = fabric.New(fabric.Config{Prefix: prefix}); err != nil {
		return err
	}
	r.follow = newFollower(r.Lab, r.Fabric)
	r.follow.open = func(ctx context.Context, worker string, at netip.AddrPort) (net.Listener, error) {
		return pod.Listen(ctx, r.Fabric.Netns(worker), at)
	}
	r.follow.logger = logger
	wait, err := r.follow.apply(ctx, live)
	if err != nil {
		return err
	}
	r.Netns = map[string]string{"vpc": r.Fabric.Netns("vpc")}
	for name := range r.Instances {
		r.Netns[name] = r.Fabric.Netns(name)
	}
	r.group.Go(func() error { return r.follow.run(live, wait) })
	return nil
}

// AwaitInstance waits until an instance that was launched through the API has its namespace, with services listening,
// and returns the namespace's path.
func (r *Running) AwaitInstance(ctx context.Context, id string) (netns string, err error) {
	if r.follow == nil {
		return "", fmt.Errorf("wait for instance %s: the lab has no fabric", id)
	}
	return r.follow.await(ctx, r.ended, id)
}

// Ended is closed when the lab stops, by [Running.Close] or because something failed, which Close then returns.
func (r *Running) Ended() <-chan struct{} { return r.ended }

// Close stops everything and removes the namespaces. Closing twice succeeds.
func (r *Running) Close() error {
	r.stop()
	err := r.group.Wait()
	if r.follow != nil {
		r.follow.close()
	}
	if r.Fabric != nil {
		err = errors.Join(err, r.Fabric.Close())
	}
	return errors.Join(err, r.buckets.Close())
}
