// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

const (
	// podENIs with perENI addresses each: room for three rounds of the largest size.
	podENIs, perENI = 8, 48
	// interfaceENIs with interfaceStock: room for three rounds in a machine in which everything is slow.
	interfaceENIs, interfaceStock = 2, 12
)

// agentConfig keeps a number of addresses in stock from the start; the reservation has the role pool.
const agentConfig = "warmIPTarget: 1\nminimumIPTarget: %d\nipCooldownPeriod: 1\n"

// warmTimeout is for the first stock and for a cooldown, also in an emulated machine.
const warmTimeout = time.Minute

// theWorker is a large instance with ENIs for pods in one subnet, whose reservation has the tags.
func theWorker(enis int, tags map[string]string) *scenario.Scenario {
	subnet := func(name, cidr string) scenario.Subnet {
		return scenario.Subnet{Name: name, CIDR: netip.MustParsePrefix(cidr), AZ: "us-west-2a"}
	}
	pods := subnet("pods", "10.78.16.0/20")
	pods.Reservations = []scenario.Reservation{{
		CIDR: netip.MustParsePrefix("10.78.24.0/21"), Type: "explicit", Tags: tags,
	}}
	w := scenario.Instance{Name: "worker-1", Type: "c5.18xlarge", ENIs: []scenario.ENI{{Subnet: "primary"}}}
	for range enis {
		w.ENIs = append(w.ENIs, scenario.ENI{Subnet: "pods", Tags: map[string]string{"node.k8s.amazonaws.com/no_manage": "true"}})
	}
	return &scenario.Scenario{
		VPC:       scenario.VPC{CIDR: netip.MustParsePrefix("10.78.0.0/16")},
		Subnets:   []scenario.Subnet{subnet("primary", "10.78.0.0/24"), pods},
		Instances: []scenario.Instance{w},
	}
}

// ground is a worker with an agent, and containers' namespaces.
type ground struct {
	enis, perENI int // ENIs for pods, and the stock of each
	lab          *lab.Running
	worker       *worker.Worker
	netns        []string // names
	starters     []*starter
}

// raise makes the ground. The caller closes it, also after an error.
func (g *ground) raise(ctx context.Context, bin string, containers int, log io.Writer) (err error) {
	id := "bench" + strconv.Itoa(os.Getpid())
	if g.lab, err = lab.Up(ctx, theWorker(g.enis, map[string]string{"multus-vpc.io/role": "pool"}), lab.Config{Prefix: id + "lab", Log: log}); err != nil {
		return err
	}
	if g.worker, err = worker.New(g.lab, "worker-1", bin); err != nil {
		return err
	}
	if err := g.worker.Start(fmt.Sprintf(agentConfig, g.perENI)); err != nil {
		return err
	}
	for i := range containers {
		name := fmt.Sprintf("%spod-%d", id, i)
		if _, err := netns.Create(name); err != nil {
			return err
		}
		g.netns = append(g.netns, name)
	}
	return g.warm(ctx)
}

// warm waits until no address is held or cools, and every ENI has its whole stock.
func (g *ground) warm(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, warmTimeout, fmt.Errorf("not within %v", warmTimeout))
	defer cancel()
	return g.worker.Await(ctx, func(s *agentapi.Status) string {
		free := 0
		for _, e := range s.ENIs {
			for _, a := range e.Addresses {
				if a.State == "free" {
					free++
				}
			}
		}
		if free < g.enis*g.perENI {
			return fmt.Sprintf("stock: %d of %d addresses are free", free, g.enis*g.perENI)
		}
		return ""
	})
}

// closeAfter closes the ground, and adds what the agent said to an error.
func (g *ground) closeAfter(err error) error {
	if err != nil && g.worker != nil {
		err = fmt.Errorf("%w\nthe agent said:\n%s", err, g.worker.Log())
	}
	return errors.Join(err, g.close())
}

// close removes what raise made, in reverse.
func (g *ground) close() error {
	var errs []error
	for _, s := range g.starters {
		errs = append(errs, s.close())
	}
	for _, name := range g.netns {
		errs = append(errs, netns.Delete(name))
	}
	if g.worker != nil {
		errs = append(errs, g.worker.Stop(), g.worker.Close())
	}
	if g.lab != nil {
		errs = append(errs, g.lab.Close())
	}
	return errors.Join(errs...)
}
