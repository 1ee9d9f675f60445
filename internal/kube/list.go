// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
)

const (
	// pageSize is kubectl's.
	pageSize = 500
	// pageTimeout bounds one page: the API server's own bound for a request is a minute.
	pageTimeout = time.Minute
)

// Reader lists what a whole cluster has, page by page. An operator's command uses it, once in a while: unlike [Client] it costs
// the API server as much as `kubectl get pods -A`. Its methods may be called concurrently. Needed of RBAC: list on pods, nodes and
// network-attachment-definitions.k8s.cni.cncf.io.
type Reader struct {
	api dynamic.Interface
}

// NewReader makes a reader without asking anything yet. The error matches [ErrNoAPI] when cfg is about no cluster.
func NewReader(cfg Config) (*Reader, error) {
	access, err := cfg.prepare()
	if err != nil {
		return nil, err
	}
	access.Timeout = pageTimeout
	api, err := dynamic.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("make a client for the Kubernetes API at %s: %w", access.Host, err)
	}
	return &Reader{api}, nil
}

// Pods lists the pods of all namespaces.
func (r *Reader) Pods(ctx context.Context) ([]cluster.Pod, error) {
	return list(ctx, r, schema.GroupVersionResource{Version: "v1", Resource: "pods"}, podOf)
}

// Nodes lists the nodes.
func (r *Reader) Nodes(ctx context.Context) ([]cluster.Node, error) {
	return list(ctx, r, schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, nodeOf)
}

// Networks lists the NetworkAttachmentDefinitions of all namespaces; none where the cluster does not know the kind.
func (r *Reader) Networks(ctx context.Context) ([]cluster.Network, error) {
	kind := schema.GroupVersionResource{Group: "k8s.cni.cncf.io", Version: "v1", Resource: "network-attachment-definitions"}
	networks, err := list(ctx, r, kind, networkOf)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return networks, err
}

// list reads all pages of a kind. A list that takes so long that the API server forgets its state is begun again, once.
func list[T any](ctx context.Context, r *Reader, kind schema.GroupVersionResource, convert func(*unstructured.Unstructured) (T, error)) ([]T, error) {
	var all []T
	again := true
	for options := (metav1.ListOptions{Limit: pageSize}); ; {
		page, err := r.api.Resource(kind).List(ctx, options)
		if apierrors.IsResourceExpired(err) && again { // https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
			all, again, options.Continue = nil, false, ""
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", kind.Resource, err)
		}
		for i := range page.Items {
			one, err := convert(&page.Items[i])
			if err != nil {
				return nil, fmt.Errorf("list %s: %s/%s: %w", kind.Resource, page.Items[i].GetNamespace(), page.Items[i].GetName(), err)
			}
			all = append(all, one)
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return all, nil
		}
	}
}

// podFields is what is read of a pod.
type podFields struct {
	Spec struct {
		NodeName       string            `json:"nodeName"`
		HostNetwork    bool              `json:"hostNetwork"`
		InitContainers []containerFields `json:"initContainers"`
		Containers     []containerFields `json:"containers"`
	} `json:"spec"`
	Status struct {
		Phase     string    `json:"phase"`
		StartTime time.Time `json:"startTime"`
		PodIPs    []struct {
			IP string `json:"ip"`
		} `json:"podIPs"`
	} `json:"status"`
}

type containerFields struct {
	Command []string `json:"command"`
	Args    []string `json:"args"`
	Env     []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"env"`
}

func podOf(u *unstructured.Unstructured) (cluster.Pod, error) {
	var f podFields
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &f); err != nil {
		return cluster.Pod{}, err
	}
	p := cluster.Pod{
		Namespace: u.GetNamespace(), Name: u.GetName(), Node: f.Spec.NodeName, HostNetwork: f.Spec.HostNetwork,
		Ended: f.Status.Phase == "Succeeded" || f.Status.Phase == "Failed", Annotations: u.GetAnnotations(),
		Started: f.Status.StartTime,
	}
	for _, ip := range f.Status.PodIPs {
		a, err := netip.ParseAddr(ip.IP)
		if err != nil {
			return p, fmt.Errorf("status.podIPs: %w", err)
		}
		p.IPs = append(p.IPs, a)
	}
	for _, c := range append(f.Spec.InitContainers, f.Spec.Containers...) {
		one := cluster.Container{Command: append(c.Command, c.Args...), Env: map[string]string{}}
		for _, e := range c.Env {
			one.Env[e.Name] = e.Value
		}
		p.Containers = append(p.Containers, one)
	}
	return p, nil
}

// nodeFields is what is read of a node.
type nodeFields struct {
	Spec struct {
		ProviderID string `json:"providerID"`
	} `json:"spec"`
	Status struct {
		Conditions []conditionFields `json:"conditions"`
	} `json:"status"`
}

type conditionFields struct {
	Type   string `json:"type"`
	Status string `json:"status"`
}

func nodeOf(u *unstructured.Unstructured) (cluster.Node, error) {
	var f nodeFields
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &f)
	lost := slices.ContainsFunc(f.Status.Conditions, func(c conditionFields) bool { return c.Type == "Ready" && c.Status != "True" })
	return cluster.Node{Name: u.GetName(), Instance: cluster.InstanceOf(f.Spec.ProviderID), Lost: lost}, err
}

func networkOf(u *unstructured.Unstructured) (cluster.Network, error) {
	config, _, err := unstructured.NestedString(u.Object, "spec", "config")
	return cluster.Network{Namespace: u.GetNamespace(), Name: u.GetName(), Config: config, Annotations: u.GetAnnotations()}, err
}
