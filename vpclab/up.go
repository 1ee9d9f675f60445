// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/multus-vpc/multus-vpc/internal/lab"
)

const upHelp = `Serve the APIs of a VPC and forward its packets, until stopped by SIGTERM or SIGINT, which removes all.

The VPC and each worker are network namespaces; an ENI is a link in its worker's namespace. The VPC
forwards an address only to the ENI that EC2 says holds it, and drops sources on the wrong ENI. The
namespaces follow the API: addresses, ENIs, instances that are launched or terminated. It needs root.

When everything is in place, one line of JSON goes to stdout, as of serve, with the namespaces:

  {"ec2":"http://…","autoscaling":"http://…","cloudformation":"http://…","imds":{…},"ids":{…},
   "netns":{"vpc":"/run/netns/vpclab-123-vpc","worker-1":"/run/netns/vpclab-123-worker-1"}}

Inside each worker's namespace IMDS listens on 169.254.169.254:80 and EC2 on 169.254.169.253:8080:

  nsenter --net=/run/netns/vpclab-123-worker-1 \
    env AWS_REGION=us-west-2 AWS_ENDPOINT_URL_EC2=http://169.254.169.253:8080 agent …

The number in the names is the process ID. What a lab leaves that was killed by SIGKILL goes by
"ip netns delete".

` + scenarioHelp

func (d *door) upCommand() *cobra.Command {
	var file string
	var at lab.Config
	c := &cobra.Command{
		Use:   "up --scenario FILE [--listen ADDRESS] [--bucket NAME=FOLDER]",
		Short: "Serve EC2 and instance metadata, and forward packets between workers, until stopped",
		Long:  upHelp,
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := d.readScenario(c, file)
			if err != nil {
				return err
			}
			if err := needRoot(c, "vpclab serve needs none, and serves the APIs alone"); err != nil {
				return err
			}
			return d.runLab(c.Context(), s, at, lab.Up)
		},
	}
	scenarioFlag(c, &file)
	placeFlags(c, &at)
	return c
}

// needRoot refuses to start what would fail half way.
func needRoot(c *cobra.Command, hint string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &usageError{
		err:   errors.New(c.CommandPath() + " needs root, to make network namespaces"),
		hints: []string{hint},
	}
}
