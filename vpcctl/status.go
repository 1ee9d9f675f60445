// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
)

// patience is how long an agent that does not listen is waited for: longer than one takes to start again.
const patience = time.Second

// statusOptions are the flags of `vpcctl status`.
type statusOptions struct {
	socket  string
	output  string
	timeout time.Duration
	fail    bool
}

func (d *door) statusCommand() *cobra.Command {
	o := statusOptions{socket: cmp.Or(d.getenv("MULTUS_VPC_AGENT_SOCKET"), agentapi.DefaultSocket)}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show this worker's ENIs, addresses and attachments, and what is wrong",
		Long: `Show this worker's ENIs, the states of their addresses, the pods' attachments, and what is wrong.

It asks the agent of this worker by its socket: as root, in the host's network namespace.`,
		Example: `  vpcctl status
  vpcctl status -o json | jq '.enis[] | {id, addresses}'
  vpcctl status --fail || echo "look at this worker"`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return d.status(c.Context(), o) },
	}
	c.Flags().StringVar(&o.socket, "socket", o.socket, "`path` of the agent's socket (MULTUS_VPC_AGENT_SOCKET)")
	c.Flags().StringVarP(&o.output, "output", "o", "table", "`form`: table, or json for all that the agent tells")
	c.Flags().DurationVar(&o.timeout, "timeout", 10*time.Second, "how long to wait for the answer")
	c.Flags().BoolVar(&o.fail, "fail", false, "exit with status 3 when the agent reports problems")
	return c
}

// status asks and prints.
func (d *door) status(ctx context.Context, o statusOptions) error {
	if o.output != "table" && o.output != "json" {
		return &problem{status: exitUsage, err: fmt.Errorf("--output: %q is neither table nor json", o.output), hint: "see vpcctl status -h"}
	}
	if o.timeout <= 0 {
		return &problem{status: exitUsage, err: fmt.Errorf("--timeout: %s is not more than 0", o.timeout), hint: "see vpcctl status -h"}
	}
	s, err := ask(ctx, o)
	if err != nil {
		return err
	}
	if o.output == "json" {
		e := json.NewEncoder(d.stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(s)
	} else {
		_, err = d.stdout.Write(render(s, d.colour))
	}
	if err != nil {
		return fmt.Errorf("print the status: %w", err)
	}
	if o.fail && len(s.Problems) > 0 {
		return errProblems
	}
	return nil
}

// ask gets the status from the agent.
func ask(ctx context.Context, o statusOptions) (*agentapi.Status, error) {
	client := agentapi.Client{Socket: o.socket, Timeout: o.timeout, Patience: min(patience, o.timeout)}
	resp, err := client.Call(ctx, agentapi.Request{Method: agentapi.MethodStatus})
	unavailable, none := errors.AsType[*agentapi.UnavailableError](err)
	switch {
	case none && unavailable.Connected:
		return nil, &problem{
			status: exitFailure, err: fmt.Errorf("the agent on %s does not answer: %w", o.socket, unavailable.Err), hint: "the agent's log says what it waits for; --timeout waits longer",
		}
	case none:
		return nil, &problem{
			status: exitFailure, err: fmt.Errorf("no agent listens on %s: %w", o.socket, unavailable.Err),
			hint: "vpcctl runs on a worker: see whether its multus-vpc agent runs (kubectl get pods -A -o wide)\n--socket says where it listens when that is elsewhere",
		}
	case errors.Is(err, fs.ErrPermission):
		return nil, &problem{status: exitFailure, err: err, hint: "the socket is root's: run vpcctl as root"}
	case err != nil:
		return nil, fmt.Errorf("ask the agent on %s: %w", o.socket, err)
	case resp.Status == nil:
		return nil, fmt.Errorf("ask the agent on %s: the answer has no status", o.socket)
	}
	return resp.Status, nil
}
