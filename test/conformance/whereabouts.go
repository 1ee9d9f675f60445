// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

// control is a Kubernetes control plane with whereabouts' definitions, which the worker reaches as long as it is wired.
type control struct {
	cluster *kubernetes.Cluster
	netns   string
	wire    *kubernetes.Forwarder
}

// startControl starts it. The caller closes it, before the node.
func startControl(ctx context.Context, n *node, programs string) (c *control, err error) {
	c = &control{netns: n.worker.Netns}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("prepare whereabouts: %w", err), c.close())
		}
	}()
	if c.cluster, err = kubernetes.Start(ctx, kubernetes.Config{Programs: programs}); err != nil {
		return c, err
	}
	definitions, err := stack.Definitions(programs)
	if err != nil {
		return c, err
	}
	if err = c.cluster.Apply(ctx, definitions); err != nil {
		return c, err
	}
	flat, err := json.Marshal(object{"kubernetes": object{"kubeconfig": c.cluster.Kubeconfig}})
	if err != nil {
		return c, err
	}
	if err = os.WriteFile(flatFile(n), flat, 0o600); err != nil {
		return c, err
	}
	return c, c.up(ctx)
}

// flatFile is the path of what each of whereabouts' calls reads besides its standard input.
// https://github.com/k8snetworkplumbingwg/whereabouts/blob/v0.8.0/doc/extended-configuration.md
func flatFile(n *node) string { return filepath.Join(n.dir, "whereabouts.conf") }

func (c *control) up(ctx context.Context) (err error) {
	c.wire, err = c.cluster.Forward(ctx, c.netns)
	return err
}

func (c *control) down(context.Context) error {
	if c.wire == nil {
		return nil
	}
	wire := c.wire
	c.wire = nil
	return wire.Close()
}

func (c *control) close() error {
	err := c.down(context.Background())
	if c.cluster != nil {
		err = errors.Join(err, c.cluster.Close())
	}
	return err
}

// pools are whereabouts' allocations; the namespace is that of the kubeconfig's context.
const pools = "/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/kube-system/ippools"

func (c *control) held(ctx context.Context) (n int, err error) {
	var list struct {
		Items []struct {
			Spec struct {
				Allocations map[string]any `json:"allocations"`
			} `json:"spec"`
		} `json:"items"`
	}
	err = c.cluster.Do(ctx, http.MethodGet, pools, nil, &list)
	for _, pool := range list.Items {
		n += len(pool.Spec.Allocations)
	}
	return n, err
}

func (c *control) outside() outside { return outside{Held: c.held, Down: c.down, Up: c.up} }

// whereabouts is the plugin with its defaults.
func (s *subject) whereabouts(n *node) {
	s.Program, s.Chooses, s.Parallel = "whereabouts", true, parallelIPAM
	s.Config = under(func(int) object {
		return object{"type": "whereabouts", "range": "10.100.0.0/16", "configuration_path": flatFile(n)}
	})
	s.Minimal = object{"type": "ipvlan", "ipam": object{"type": "whereabouts", "configuration_path": flatFile(n)}}
	s.Capacity = 3
	s.Small = func(i int) object {
		// Each range has a pool; the first address of one is not given.
		return object{"ipam": object{"range": fmt.Sprintf("10.101.%d.0/24", i), "range_start": fmt.Sprintf("10.101.%d.1", i), "range_end": fmt.Sprintf("10.101.%d.3", i)}}
	}
}
