// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

const serveHelp = `Serve the APIs of a VPC until stopped by SIGTERM or SIGINT.

When all sockets are open, one line of JSON goes to stdout:

  {"ec2":"http://…","autoscaling":"http://…","cloudformation":"http://…",
   "imds":{"worker-1":"http://…"},"ids":{"worker-1":"i-…"}}

An unmodified AWS CLI or SDK works against these URLs, with any credentials:

  aws ec2 describe-instances --region us-west-2 --endpoint-url URL
  AWS_ENDPOINT_URL_EC2=URL AWS_EC2_METADATA_SERVICE_ENDPOINT=URL agent …

Auto Scaling keeps groups, with lifecycle hooks, from launch templates. What it launches has its metadata in its namespace,
with vpclab up:

  aws autoscaling describe-auto-scaling-groups --region us-west-2 --endpoint-url URL

CloudFormation deploys templates with the types and functions that those of cfn/ use, and refuses others by name. Functions
run the bootstrap out of their package: a bucket is a folder here, --bucket NAME=FOLDER.

  aws cloudformation deploy --region us-west-2 --endpoint-url URL --stack-name net --template-file cfn/vpc.yaml

On the EC2 and the Auto Scaling port, GET /_lab/calls counts calls by action, caller (access key ID, or the instance
whose metadata handed it out) and result; POST /_lab/faults replaces the faults.

` + scenarioHelp

// scenarioHelp explains the file to every command that reads one.
const scenarioHelp = `The scenario file (YAML; everything from ec2 on is optional, and what is left out is ideal):

  vpc: {cidr: 10.10.0.0/16}                 # also ipv6, tags
  subnets:                                  # also ipv6
  - {name: primary,  cidr: 10.10.12.0/24, az: us-west-2a}
  - {name: multus-1, cidr: 10.10.1.0/24,  az: us-west-2a, tags: {multus: "1"},
     reservations: [{cidr: 10.10.1.64/26, type: explicit, tags: {multus-vpc.io/role: pool}}]}
  instances:
  - name: worker-1
    type: m5.2xlarge
    enis:                                   # also ipv6Addresses, networkCard, deviceIndex, link: early|late
    - {subnet: primary}
    - {subnet: multus-1, addresses: [10.10.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  ec2:
    latency: 80ms
    propagation: {route: 1s, imds: 2s, describe: 1s}
    boot: 15s                               # for how long an instance that is launched is pending
    assignOwned: ok                         # or error
    mixedBatch: atomic                      # or partial
    throttle:                               # a bucket per action; default sizes them by class
      default: {read: {burst: 100, refill: 20}, write: {burst: 50, refill: 5}}
      AssignPrivateIpAddresses: {burst: 100, refill: 5}
    faults:                                 # kinds lost-reply, error-before, error-after, 5xx, slow
    - {action: AssignPrivateIpAddresses, nth: 3, count: 1, kind: lost-reply}   # or probability; code, delay
    seed: 1
  autoScaling: {faults: [{action: CompleteLifecycleAction, kind: lost-reply}]}   # also throttle, as of ec2
  events: {duplicates: 1, delay: 5s}        # each event once more; events overtake each other within delay
  functions: {retryAfter: 1s}               # of events that a function failed at; AWS waits a minute`

func (d *door) serveCommand() *cobra.Command {
	var file string
	var at lab.Config
	c := &cobra.Command{
		Use:   "serve --scenario FILE [--listen ADDRESS] [--bucket NAME=FOLDER]",
		Short: "Serve EC2, Auto Scaling, CloudFormation and instance metadata until stopped",
		Long:  serveHelp,
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := d.readScenario(c, file)
			if err != nil {
				return err
			}
			return d.runLab(c.Context(), s, at, lab.Serve)
		},
	}
	scenarioFlag(c, &file)
	placeFlags(c, &at)
	return c
}

func scenarioFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "scenario", "", "scenario file in YAML, - for stdin (required)")
}

// placeFlags say where the lab appears, and where it finds packages of functions.
func placeFlags(c *cobra.Command, at *lab.Config) {
	c.Flags().StringVar(&at.Listen, "listen", "127.0.0.1:0",
		"host:port of the EC2 API; port 0 takes a free one, and the other APIs and each IMDS take free ones of the same host")
	c.Flags().StringToStringVar(&at.Buckets, "bucket", nil, "NAME=FOLDER: a folder that is an S3 bucket for the packages of functions")
}

// readScenario reads the file of --scenario.
func (d *door) readScenario(c *cobra.Command, file string) (*scenario.Scenario, error) {
	if file == "" {
		return nil, &usageError{
			err:   fmt.Errorf("%s: the flag --scenario is missing", c.CommandPath()),
			hints: []string{"see " + c.CommandPath() + " -h, which shows a scenario to start from"},
		}
	}
	data, err := d.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &usageError{err: err, hints: []string{c.CommandPath() + " -h shows a scenario to start from"}}
	} else if err != nil {
		return nil, err
	}
	s, err := scenario.Parse(data)
	if err != nil {
		return nil, scenarioErrors(file, err)
	}
	return s, nil
}

func (d *door) read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(d.stdin)
	}
	return os.ReadFile(file)
}

// ready is the line on stdout that says where everything is.
type ready struct {
	EC2            string            `json:"ec2"`
	AutoScaling    string            `json:"autoscaling"`
	CloudFormation string            `json:"cloudformation"`
	IMDS           map[string]string `json:"imds"`
	IDs            map[string]string `json:"ids"`
	Netns          map[string]string `json:"netns,omitempty"` // of `up`
}

// starter is [lab.Serve] or [lab.Up].
type starter func(context.Context, *scenario.Scenario, lab.Config) (*lab.Running, error)

// runLab runs a lab until ctx ends or it fails.
func (d *door) runLab(ctx context.Context, s *scenario.Scenario, at lab.Config, start starter) (err error) {
	if _, _, err = net.SplitHostPort(at.Listen); err != nil {
		return &usageError{
			err:   fmt.Errorf("--listen: %q is not host:port", at.Listen),
			hints: []string{"--listen 127.0.0.1:0 takes a free port"},
		}
	}
	at.Log = d.stderr
	running, err := start(ctx, s, at)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil // stopped before it had started
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.Close()) }()
	line := ready{
		EC2: running.EC2URL, AutoScaling: running.AutoScalingURL, CloudFormation: running.CloudFormationURL, IMDS: running.IMDSURL, IDs: running.Instances, Netns: running.Netns,
	}
	if err = json.NewEncoder(d.stdout).Encode(line); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-running.Ended():
	}
	return nil
}
