// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/cluster"
)

// PodNetworks is what Multus says that it gave a pod.
type PodNetworks struct {
	Pod attachment.Pod
	// Default are the addresses of the pod's first interface.
	Default []netip.Addr
	// Addrs are those of each interface by its name.
	Addrs map[string][]netip.Addr
}

// Networks lists what the pods of a node have, those left out that are done, that are being deleted, or that Multus has not
// written about. Needed of RBAC: list on pods.
func (c *Client) Networks(ctx context.Context, node string) ([]PodNetworks, error) {
	if node == "" {
		return nil, errors.New("list pods of this node: its name is not known; set --node-name")
	}
	pods := c.metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"})
	living := fields.AndSelectors(
		fields.OneTermEqualSelector("spec.nodeName", node),
		fields.OneTermNotEqualSelector("status.phase", "Succeeded"),
		fields.OneTermNotEqualSelector("status.phase", "Failed"),
	)
	var found []PodNetworks
	for page := (metav1.ListOptions{FieldSelector: living.String(), Limit: pageSize}); ; {
		list, err := pods.List(ctx, page)
		switch {
		case apierrors.IsForbidden(err):
			return nil, fmt.Errorf("list pods of node %s: %w; give the agent's service account list on pods", node, err)
		case err != nil:
			return nil, fmt.Errorf("list pods of node %s: %w", node, err)
		}
		for _, p := range list.Items {
			if n, ok := networksOf(p.ObjectMeta); ok {
				found = append(found, n)
			}
		}
		if page.Continue = list.Continue; page.Continue == "" {
			return found, nil
		}
	}
}

// networksOf reads one pod's annotation, which Multus writes, and which only who may patch the pod can change. One that cannot be read is none: it vouches for nothing.
func networksOf(pod metav1.ObjectMeta) (n PodNetworks, ok bool) {
	text := pod.Annotations[cluster.AnnotationNetworkStatus]
	if text == "" || pod.DeletionTimestamp != nil {
		return n, false
	}
	var networks []struct {
		Interface string   `json:"interface"`
		IPs       []string `json:"ips"`
		Default   bool     `json:"default"`
	}
	if err := json.Unmarshal([]byte(text), &networks); err != nil {
		return n, false
	}
	n = PodNetworks{
		Pod:   attachment.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)},
		Addrs: map[string][]netip.Addr{},
	}
	for _, network := range networks {
		for _, ip := range network.IPs {
			a, err := cluster.ParseAddr(ip)
			if err != nil {
				continue
			}
			n.Addrs[network.Interface] = append(n.Addrs[network.Interface], a)
			if network.Default {
				n.Default = append(n.Default, a)
			}
		}
	}
	return n, true
}
