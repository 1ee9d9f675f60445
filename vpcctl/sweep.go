// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/spf13/cobra"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/kube"
	"github.com/multus-vpc/multus-vpc/internal/sweep"
)

// sweepOptions are the flags of `vpcctl sweep`.
type sweepOptions struct {
	kubeconfig, context string
	region              string
	cluster             string
	subnets             []string
	ranges, keep        []string
	output              string
	wait                time.Duration
	yes, fail           bool
}

func (d *door) sweepCommand() *cobra.Command {
	o := sweepOptions{kubeconfig: cmp.Or(d.getenv("KUBECONFIG"), d.homeKubeconfig()), wait: sweep.DefaultWait}
	c := &cobra.Command{
		Use:   "sweep",
		Short: "Find addresses that are registered for pods which are gone, and free them",
		Long: `Find addresses that are registered in EC2 for pods which are gone, and free them with --yes.

It looks at the secondary addresses of ENIs tagged node.k8s.amazonaws.com/no_manage=true. An address is an orphan when no pod of
the cluster has it (status and network-status), none may be about to get it or carry it by itself, and it is no agent's stock. With
--yes a second look follows after --wait, and what both took for an orphan is unassigned from its ENI. Without it nothing changes.

It runs anywhere, needs ec2:DescribeNetworkInterfaces, ec2:GetSubnetCidrReservations and, with --yes, ec2:UnassignPrivateIpAddresses
and ec2:UnassignIpv6Addresses, and list on pods, nodes and network-attachment-definitions. Region and credentials are those that
the AWS CLI would use.

Exit status: 0 done, or nothing to do; 1 EC2 or Kubernetes could not be asked, or an address could not be freed; 2 the command line is
wrong; 3 orphans were found and not freed (with --fail).`,
		Example: `  vpcctl sweep
  vpcctl sweep --range 10.10.1.80-10.10.1.99 --yes
  vpcctl sweep -o json | jq -r '.addresses[] | select(.verdict == "orphan") | .address'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return d.sweep(c.Context(), o) },
	}
	f := c.Flags()
	f.BoolVar(&o.yes, "yes", false, "free the orphans, after a second look")
	f.DurationVar(&o.wait, "wait", o.wait, "time between the two looks")
	f.StringVar(&o.cluster, "cluster", "", "`name` of the EKS cluster: look only at ENIs tagged with it, and also at those that are on no instance any more")
	f.StringSliceVar(&o.subnets, "subnet", nil, "`IDs` of the subnets to look at")
	f.StringSliceVar(&o.ranges, "range", nil, "`ranges` to look at, of which no pod takes addresses by itself: CIDRs, 10.10.1.80-10.10.1.99, addresses")
	f.StringSliceVar(&o.keep, "keep", nil, "`ranges` of which nothing is freed")
	f.StringVarP(&o.output, "output", "o", "table", "`form`: table or json")
	f.BoolVar(&o.fail, "fail", false, "exit with status 3 when orphans were found and not freed")
	f.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "`file` to reach the Kubernetes API with (KUBECONFIG); without one, as the pod's service account")
	f.StringVar(&o.context, "context", "", "`name` of the context of that file")
	f.StringVar(&o.region, "region", "", "AWS `Region` (AWS_REGION)")
	return c
}

// homeKubeconfig is the file that kubectl reads, if there is one.
func (d *door) homeKubeconfig() string {
	file := filepath.Join(d.getenv("HOME"), ".kube", "config")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// sweep asks, frees and prints. What was done is printed also when the rest failed.
func (d *door) sweep(ctx context.Context, o sweepOptions) error {
	options, err := o.parse()
	if err != nil {
		return &problem{status: exitUsage, err: err, hint: "see vpcctl sweep -h"}
	}
	options.Tell = func(line string) { fmt.Fprintln(d.stderr, line) }
	sweeper, err := d.sweeper(ctx, o)
	if err != nil {
		return err
	}
	report, err := sweeper.Run(ctx, options)
	if err != nil && len(report.Findings) == 0 {
		return explain(err)
	}
	if printErr := d.printSweep(report, o); printErr != nil {
		return errors.Join(explain(err), printErr)
	}
	switch {
	case err != nil:
		return explain(err)
	case report.Count(sweep.Failed) > 0:
		return fmt.Errorf("of the orphans, %d could not be freed", report.Count(sweep.Failed))
	case o.fail && report.Count(sweep.Orphan) > 0:
		return errProblems
	}
	return nil
}

// parse reports everything that is wrong with the flags.
func (o sweepOptions) parse() (sweep.Options, error) {
	var errs []error
	options := sweep.Options{Cluster: o.cluster, Free: o.yes, Wait: o.wait}
	if o.output != "table" && o.output != "json" {
		errs = append(errs, fmt.Errorf("--output: %q is neither table nor json", o.output))
	}
	if o.wait < 0 {
		errs = append(errs, fmt.Errorf("--wait: %s is less than 0", o.wait))
	}
	for _, s := range o.subnets {
		if !strings.HasPrefix(s, "subnet-") {
			errs = append(errs, fmt.Errorf("--subnet: %q is no subnet ID (subnet-…)", s))
		}
		options.Subnets = append(options.Subnets, eni.SubnetID(s))
	}
	for _, flag := range []struct {
		name  string
		texts []string
		to    *[]attachment.Range
	}{{"--range", o.ranges, &options.Ranges}, {"--keep", o.keep, &options.Keep}} {
		for _, s := range flag.texts {
			r, err := attachment.ParseRange(s)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", flag.name, err))
			}
			*flag.to = append(*flag.to, r)
		}
	}
	return options, errors.Join(errs...)
}

// sweeper reaches EC2 and Kubernetes as the user's other tools do.
func (d *door) sweeper(ctx context.Context, o sweepOptions) (*sweep.Sweeper, error) {
	sdk, err := config.LoadDefaultConfig(ctx, config.WithRegion(o.region))
	if err != nil {
		return nil, fmt.Errorf("configure the AWS SDK: %w", err)
	}
	if sdk.Region == "" {
		return nil, &problem{status: exitUsage, err: errors.New("no AWS Region is configured"), hint: "set AWS_REGION, or --region"}
	}
	sdk.Logger = nil // it would write to standard error, where the progress is; what matters comes as an error
	reader, err := kube.NewReader(kube.Config{
		Kubeconfig: o.kubeconfig, Context: o.context, UserAgent: "vpcctl/" + version(),
		ServiceHost: d.getenv("KUBERNETES_SERVICE_HOST"), ServicePort: d.getenv("KUBERNETES_SERVICE_PORT"),
	})
	if errors.Is(err, kube.ErrNoAPI) {
		return nil, &problem{status: exitUsage, err: err, hint: "name a file by --kubeconfig or KUBECONFIG: without the pods nothing can be told to be an orphan"}
	}
	if err != nil {
		return nil, err
	}
	return &sweep.Sweeper{EC2: ec2eni.New(ec2eni.Config{SDK: sdk}), Kubernetes: reader}, nil
}

// explain adds what to do about an error.
func explain(err error) error {
	switch {
	case errors.Is(err, eni.ErrUnauthorized):
		return &problem{status: exitFailure, err: err, hint: "see vpcctl sweep -h for the EC2 actions that it needs"}
	case errors.Is(err, context.Canceled):
		return &problem{status: exitFailure, err: err, hint: "stopped: what was not freed is as it was"}
	}
	return err
}

func (d *door) printSweep(r sweep.Report, o sweepOptions) error {
	var err error
	if o.output == "json" {
		e := json.NewEncoder(d.stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	} else {
		_, err = d.stdout.Write(renderSweep(r, o.yes, d.colour))
	}
	if err != nil {
		return fmt.Errorf("print the findings: %w", err)
	}
	return nil
}
