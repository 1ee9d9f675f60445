// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// TestTheTaintStaysUntilTheENIsAreThere: the agent awaits one more than the worker has.
func TestTheTaintStaysUntilTheENIsAreThere(t *testing.T) {
	t.Parallel()
	counting(t, func(c *counted) {
		var asked atomic.Int32
		w := &worker{Node: c.handler.node.Node, await: 2, unveil: func(context.Context) (bool, error) {
			if asked.Add(1) < 3 {
				return false, errors.New("the API server is away")
			}
			return true, nil
		}}
		var said bytes.Buffer
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.welcome(c.t.Context(), slog.New(slog.NewTextHandler(&said, nil)))
		}()
		c.pass(10 * time.Minute)
		want := "the worker has 1 ENIs for pods, and awaitInterfaces of the configuration is 2"
		if problems := w.Status().Problems; len(problems) != 1 || problems[0] != want || asked.Load() != 0 {
			c.t.Errorf("problems %q, the taint was asked for %d times; want %q and 0", problems, asked.Load(), want)
		}

		e, err := c.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{
			SubnetID: c.lab.Subnets["pods"], Tags: map[string]string{"node.k8s.amazonaws.com/no_manage": "true"},
		})
		if err != nil {
			c.t.Fatal(err)
		}
		c.pass(time.Minute)
		if _, err = c.lab.Cloud.AttachNetworkInterface(time.Now(), vpc.AttachNetworkInterfaceInput{
			NetworkInterfaceID: e.ID, InstanceID: c.lab.Instances["worker-1"], DeviceIndex: 5,
		}); err != nil {
			c.t.Fatal(err)
		}
		<-done
		if problems := w.Status().Problems; len(problems) != 0 || asked.Load() != 3 {
			c.t.Errorf("problems %q, the taint was asked for %d times; want none, and 3", problems, asked.Load())
		}
		if n := strings.Count(said.String(), "it stays"); n != 1 || !strings.Contains(said.String(), "startup taint removed") {
			c.t.Errorf("the agent said:\n%s", &said)
		}
	})
}

// TestReadyWithItsENIsOnly: an agent that cannot give its worker the ENIs lives, says why, and is not ready.
func TestReadyWithItsENIsOnly(t *testing.T) {
	t.Parallel()
	running := served(t)
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("{owner: c, interfaces: [{subnetTags: {network: none}}]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := started(t, running, running.IMDSURL["worker-1"], "MULTUS_VPC_CONFIG="+file)
	d.await("it says why", func() bool {
		status, body := d.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.HasPrefix(body, "the worker does not have all ENIs") && strings.Contains(body, "has the tags [network:none]")
	})
	if status, body := d.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	_, body := d.get("/metrics")
	for _, line := range []string{
		"multusvpc_ready 1\n", "multusvpc_interfaces_in_place 0\n", `multusvpc_ec2_calls_total{action="CreateNetworkInterface"} 0` + "\n",
	} {
		if !strings.Contains(body, line) {
			t.Errorf("/metrics lacks %q", line)
		}
	}
	d.stop()
}

// TestTheExampleOfThePage: the file that docs/interfaces.md shows is one.
func TestTheExampleOfThePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/interfaces.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "```yaml\n")
	text, _, ended := strings.Cut(text, "```")
	if !found || !ended {
		t.Fatal("the page shows no file")
	}
	o := options{pool: pool.DefaultConfig()}
	if err = o.overlay([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if n := o.interfaces.Interfaces; len(n) != 2 || !n[0].Last || n[1].Stock != 14 || o.interfaces.Owner != "my-cluster" {
		t.Errorf("it is read as %+v", o.interfaces)
	}
}
