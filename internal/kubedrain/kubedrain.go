// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package kubedrain is the hand in the Kubernetes API of who empties a node: it finds the node of an instance, cordons it and
// undoes that, lists its pods and asks for their end. The Lambda function of the lifecycle hook uses it. Each method is one question, asked once and bounded
// in time; what is to be asked again, and when, is its caller's affair. It decides nothing.
//
// Needed of RBAC: list on nodes and pods, patch on nodes, create on pods/eviction, and delete on pods for [Client.Delete].
//
// It stands on client-go's REST client, because the clients above it ask again by themselves when the API server refuses an eviction,
// up to ten times with pauses of ten seconds, and hold lists of nodes in memory whole.
package kubedrain

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

const (
	// requestTimeout is longer than the ten seconds for which an API server itself tries to count an eviction in a
	// PodDisruptionBudget that others write at the same time.
	// https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/registry/core/pod/storage/eviction.go (EvictionsRetry)
	requestTimeout = 30 * time.Second
	// pageSize is kubectl's.
	pageSize = "500"
)

// Config says where the API is, and as whom to speak to it.
type Config struct {
	Endpoint string // https://…
	CA       []byte // PEM: who signed the endpoint's certificate
	// Token returns a bearer token that is valid now. It is called for each request.
	Token     func(context.Context) (string, error)
	UserAgent string
}

// Client asks the API. Its methods may be called concurrently.
type Client struct {
	api *rest.RESTClient
}

// New makes a client without asking anything yet.
func New(cfg Config) (*Client, error) {
	words := runtime.NewScheme() // only the API's own: errors and options
	version := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(words, version)
	words.AddUnversionedTypes(version, &metav1.Status{})
	access := &rest.Config{
		Host: cfg.Endpoint, APIPath: "/api", TLSClientConfig: rest.TLSClientConfig{CAData: cfg.CA}, UserAgent: cfg.UserAgent,
		WrapTransport: func(next http.RoundTripper) http.RoundTripper { return &bearer{token: cfg.Token, next: next} },
		Timeout:       requestTimeout,
		QPS:           -1, // the API server's own fairness shares it out
		ContentConfig: rest.ContentConfig{
			GroupVersion: &version, NegotiatedSerializer: serializer.NewCodecFactory(words).WithoutConversion(),
			AcceptContentTypes: runtime.ContentTypeJSON, ContentType: runtime.ContentTypeJSON,
		},
		WarningHandler: rest.NoWarnings{},
	}
	api, err := rest.RESTClientFor(access)
	if err != nil {
		return nil, fmt.Errorf("make a client for the Kubernetes API at %s: %w", cfg.Endpoint, err)
	}
	return &Client{api}, nil
}

// bearer puts a token on each request.
type bearer struct {
	token func(context.Context) (string, error)
	next  http.RoundTripper
}

// WrappedRoundTripper lets [net.CloseIdleConnectionsFor] see through it.
func (b *bearer) WrappedRoundTripper() http.RoundTripper { return b.next }

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := b.token(r.Context())
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return b.next.RoundTrip(r)
}

// CloseIdle closes the connections that are not in use. One that stays open while its program is frozen, as between two invocations of a
// function, may have gone meanwhile without a word, and costs the next request its whole time.
func (c *Client) CloseIdle() { net.CloseIdleConnectionsFor(c.api.Client.Transport) }

// Homes finds the nodes of an instance: one, or none while it has not joined or when it has left. The API has no index of
// instances, so it reads all nodes, page by page.
func (c *Client) Homes(ctx context.Context, instance eni.InstanceID) (homes []cluster.Home, err error) {
	err = list(ctx, func() *rest.Request { return c.api.Get().Resource("nodes").Param("limit", pageSize) }, func(n node) {
		if cluster.InstanceOf(n.Spec.ProviderID) == instance {
			homes = append(homes, n.home())
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	return homes, nil
}

// Instance is whose node it is now; empty when there is none of the name. It is a list of one, which needs no other permission than the
// list of all.
func (c *Client) Instance(ctx context.Context, name string) (instance eni.InstanceID, err error) {
	request := func() *rest.Request {
		return c.api.Get().Resource("nodes").Param("fieldSelector", fields.OneTermEqualSelector("metadata.name", name).String())
	}
	err = list(ctx, request, func(n node) {
		if n.Metadata.Name == name {
			instance = cluster.InstanceOf(n.Spec.ProviderID)
		}
	})
	if err != nil {
		return "", fmt.Errorf("read node %s: %w", name, err)
	}
	return instance, nil
}

// Cordon keeps new pods away from a node, and notes since when on it. The error matches [cluster.ErrGone] when there is no such node.
func (c *Client) Cordon(ctx context.Context, node string, since time.Time) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}},"spec":{"unschedulable":true}}`, annotationCordoned, since.UTC().Format(time.RFC3339Nano))
	err := c.api.Patch(types.MergePatchType).Resource("nodes").Name(node).Body(patch).MaxRetries(0).Do(ctx).Error()
	if !apierrors.IsConflict(err) { // which is no word of another node: the patch names no version, and others write the node at the same time
		err = translate(err)
	}
	if err != nil {
		return fmt.Errorf("cordon node %s: %w", node, err)
	}
	return nil
}

// Uncordon lets pods back onto a node, unless it has changed since it was read.
func (c *Client) Uncordon(ctx context.Context, h cluster.Home) error {
	patch := fmt.Appendf(nil, `{"metadata":{"resourceVersion":%q,"annotations":{%q:null}},"spec":{"unschedulable":null}}`, h.Version, annotationCordoned)
	if err := c.api.Patch(types.MergePatchType).Resource("nodes").Name(h.Name).Body(patch).MaxRetries(0).Do(ctx).Error(); err != nil {
		return fmt.Errorf("uncordon node %s: %w", h.Name, translate(err))
	}
	return nil
}

// Residents lists the pods of a node. A fresh list is what is true now; another one may be seconds old, and costs the API server
// nothing but memory that it has.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#the-resourceversion-parameter
func (c *Client) Residents(ctx context.Context, node string, fresh bool) (pods []cluster.Resident, err error) {
	request := func() *rest.Request {
		r := c.api.Get().Resource("pods").Param("fieldSelector", fields.OneTermEqualSelector("spec.nodeName", node).String())
		if fresh {
			return r.Param("limit", pageSize)
		}
		return r.Param("resourceVersion", "0")
	}
	if err = list(ctx, request, func(p pod) { pods = append(pods, p.resident()) }); err != nil {
		return nil, fmt.Errorf("list the pods of node %s: %w", node, err)
	}
	return pods, nil
}

// Evict asks for a pod's end, with its own grace. Success means that it has begun to end. The error matches [cluster.ErrGone] when it
// is not there, and a [*cluster.RefusedError] when it may not be evicted now.
// https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
func (c *Client) Evict(ctx context.Context, p cluster.Resident) error {
	body, err := json.Marshal(eviction{
		APIVersion: "policy/v1", Kind: "Eviction", Metadata: metadata{Namespace: p.Namespace, Name: p.Name},
		DeleteOptions: deleteOptions{Preconditions: preconditions{UID: p.UID}},
	})
	if err != nil {
		return fmt.Errorf("evict pod %s: %w", p, err)
	}
	if err = c.api.Post().Namespace(p.Namespace).Resource("pods").Name(p.Name).SubResource("eviction").Body(body).MaxRetries(0).Do(ctx).Error(); err != nil {
		return fmt.Errorf("evict pod %s: %w", p, refusal(err))
	}
	return nil
}

// Delete ends a pod within the grace, whatever PodDisruptionBudgets say. The error matches [cluster.ErrGone] when it is not there.
func (c *Client) Delete(ctx context.Context, p cluster.Resident, grace time.Duration) error {
	seconds := int64(grace / time.Second)
	body, err := json.Marshal(deleteOptions{APIVersion: "v1", Kind: "DeleteOptions", Preconditions: preconditions{UID: p.UID}, GracePeriodSeconds: &seconds})
	if err != nil {
		return fmt.Errorf("delete pod %s: %w", p, err)
	}
	if err = c.api.Delete().Namespace(p.Namespace).Resource("pods").Name(p.Name).Body(body).MaxRetries(0).Do(ctx).Error(); err != nil {
		return fmt.Errorf("delete pod %s: %w", p, translate(err))
	}
	return nil
}
