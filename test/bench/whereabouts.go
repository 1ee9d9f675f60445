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

// Whereabouts takes a hundred times as long as the others: one round of it is as many seconds as all of theirs, and the
// ratio is that of a round.
const whereaboutsRounds, whereaboutsBatch = 1, 8

// control is a Kubernetes control plane, with whereabouts installed: etcd and API server on this machine's loopback, which
// is nearer than any cluster's.
type control struct {
	cluster *kubernetes.Cluster
	conf    string // folder of whereabouts' own configuration
}

// startControl starts it. The caller closes it.
func startControl(ctx context.Context, programs string) (_ *control, err error) {
	c := &control{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("prepare whereabouts: %w", err), c.close())
		}
	}()
	if c.conf, err = os.MkdirTemp("", "multus-vpc-whereabouts-"); err != nil {
		return nil, err
	}
	if c.cluster, err = kubernetes.Start(ctx, kubernetes.Config{Programs: programs}); err != nil {
		return nil, err
	}
	definitions, err := stack.Definitions(programs)
	if err != nil {
		return nil, err
	}
	if err = c.cluster.Apply(ctx, definitions); err != nil {
		return nil, err
	}
	flat, err := json.Marshal(object{"kubernetes": object{"kubeconfig": c.cluster.Kubeconfig}})
	if err != nil {
		return nil, err
	}
	return c, os.WriteFile(c.configuration(), flat, 0o600)
}

// configuration is the path of the file that each of whereabouts' calls reads besides its standard input.
// https://github.com/k8snetworkplumbingwg/whereabouts/blob/v0.8.0/doc/extended-configuration.md
func (c *control) configuration() string { return filepath.Join(c.conf, "whereabouts.conf") }

func (c *control) close() error {
	err := os.RemoveAll(c.conf)
	if c.cluster != nil {
		err = errors.Join(err, c.cluster.Close())
	}
	return err
}

// plugin is whereabouts with its defaults.
func (c *control) plugin(o options, g *ground) plugin {
	return plugin{
		name: "whereabouts", program: filepath.Join(o.stack, "whereabouts"), gives: true, outside: true,
		rounds: whereaboutsRounds, batch: min(whereaboutsBatch, o.batch), left: c.left,
		network: g.underIPVlan(func(int) object {
			return object{"type": "whereabouts", "range": range16, "configuration_path": c.configuration()}
		}),
	}
}

// Where whereabouts keeps its state: the namespace is that of the kubeconfig's context.
const (
	pools        = "/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/kube-system/ippools"
	reservations = "/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/kube-system/overlappingrangeipreservations"
)

// left counts the addresses in whereabouts' pools, and removes the pools.
func (c *control) left(ctx context.Context) (int, error) {
	var list struct {
		Items []struct {
			Spec struct {
				Allocations map[string]any `json:"allocations"`
			} `json:"spec"`
		} `json:"items"`
	}
	if err := c.cluster.Do(ctx, http.MethodGet, pools, nil, &list); err != nil {
		return 0, err
	}
	left := 0
	for _, pool := range list.Items {
		left += len(pool.Spec.Allocations)
	}
	return left, errors.Join(
		c.cluster.Do(ctx, http.MethodDelete, pools, nil, nil), c.cluster.Do(ctx, http.MethodDelete, reservations, nil, nil))
}
