// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package kubeinject is the injector's hand in the Kubernetes API: it reads annotations of networks and labels of namespaces, each
// remembered for a few seconds so that a Deployment of many pods asks once, and keeps the injector's certificates in a Secret
// and their authorities in the webhook configuration. It decides nothing. Needed of RBAC: get on namespaces and on
// network-attachment-definitions; get and patch on that one Secret and that one MutatingWebhookConfiguration.
package kubeinject

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// memory is how long an answer is remembered: long enough for a burst of pods, too short for a person to wonder.
const memory = 3 * time.Second

var (
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	networks   = schema.GroupVersionResource{Group: "k8s.cni.cncf.io", Version: "v1", Resource: "network-attachment-definitions"}
	secrets    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	webhooks   = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
)

// Client asks the API. Its methods may be called concurrently.
type Client struct {
	metadata metadata.Interface
	objects  dynamic.Interface

	annotations memo[found]
	labels      memo[map[string]string]
}

type found struct {
	annotations map[string]string
	ok          bool
}

// New makes a client without asking anything yet.
func New(access *rest.Config) (*Client, error) {
	meta, err := metadata.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("make a client for the Kubernetes API at %s: %w", access.Host, err)
	}
	objects, err := dynamic.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("make a client for the Kubernetes API at %s: %w", access.Host, err)
	}
	return &Client{metadata: meta, objects: objects}, nil
}

// NetworkAnnotations are those of a NetworkAttachmentDefinition; false when there is none of that name, which is not remembered.
func (c *Client) NetworkAnnotations(ctx context.Context, namespace, name string) (map[string]string, bool, error) {
	// Names come from pods' annotations, and the client resolves "..".
	if len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return nil, false, nil
	}
	f, err := c.annotations.get(ctx, namespace+"/"+name, func(ctx context.Context) (found, bool, error) {
		object, err := c.metadata.Resource(networks).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return found{}, false, nil
		}
		if err != nil {
			return found{}, false, err
		}
		return found{object.Annotations, true}, true, nil
	})
	return f.annotations, f.ok, err
}

// NamespaceLabels are those of a namespace.
func (c *Client) NamespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	return c.labels.get(ctx, name, func(ctx context.Context) (map[string]string, bool, error) {
		object, err := c.metadata.Resource(namespaces).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, false, err
		}
		return object.Labels, true, nil
	})
}
