// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubeinject

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// ErrConflict says that somebody else wrote first.
var ErrConflict = errors.New("another version is there")

// Secret is one whose data the replicas share. It must be there: the permission to create Secrets cannot be limited to one.
type Secret struct {
	objects   dynamic.ResourceInterface
	namespace string
	name      string
}

// Secret returns the one of that name.
func (c *Client) Secret(namespace, name string) Secret {
	return Secret{c.objects.Resource(secrets).Namespace(namespace), namespace, name}
}

// Load returns the data and the version of the Secret.
func (s Secret) Load(ctx context.Context) (map[string][]byte, string, error) {
	object, err := s.objects.Get(ctx, s.name, metav1.GetOptions{})
	if err != nil {
		return nil, "", fmt.Errorf("get Secret %s/%s: %w", s.namespace, s.name, err)
	}
	encoded, _, err := unstructured.NestedStringMap(object.Object, "data")
	if err != nil {
		return nil, "", fmt.Errorf("read Secret %s/%s: %w", s.namespace, s.name, err)
	}
	data := map[string][]byte{}
	for key, text := range encoded {
		if data[key], err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, "", fmt.Errorf("read Secret %s/%s: key %s: %w", s.namespace, s.name, key, err)
		}
	}
	return data, object.GetResourceVersion(), nil
}

// Save replaces the keys of data. It fails with [ErrConflict] when the Secret has not that version any more.
func (s Secret) Save(ctx context.Context, data map[string][]byte, version string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": version}, "data": data})
	if err != nil {
		return err
	}
	_, err = s.objects.Patch(ctx, s.name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patch Secret %s/%s: %w", s.namespace, s.name, conflict(err))
	}
	return nil
}

// Configuration is a MutatingWebhookConfiguration whose webhooks are all served by the injector.
type Configuration struct {
	objects dynamic.ResourceInterface
	name    string
}

// Configuration returns the one of that name.
func (c *Client) Configuration(name string) Configuration {
	return Configuration{c.objects.Resource(webhooks), name}
}

// Bundle returns the caBundle of the webhooks, nothing when they do not agree, and the version of the object.
func (c Configuration) Bundle(ctx context.Context) ([]byte, string, error) {
	object, list, err := c.read(ctx)
	if err != nil {
		return nil, "", err
	}
	var bundle string
	for i, item := range list {
		webhook, _ := item.(map[string]any)
		text, _, textErr := unstructured.NestedString(webhook, "clientConfig", "caBundle")
		if textErr != nil {
			return nil, "", fmt.Errorf("read MutatingWebhookConfiguration %s: %w", c.name, textErr)
		}
		if i > 0 && text != bundle {
			return nil, object.GetResourceVersion(), nil
		}
		bundle = text
	}
	decoded, err := base64.StdEncoding.DecodeString(bundle)
	if err != nil {
		return nil, "", fmt.Errorf("read MutatingWebhookConfiguration %s: caBundle: %w", c.name, err)
	}
	return decoded, object.GetResourceVersion(), nil
}

func (c Configuration) read(ctx context.Context) (*unstructured.Unstructured, []any, error) {
	object, err := c.objects.Get(ctx, c.name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("get MutatingWebhookConfiguration %s: %w", c.name, err)
	}
	list, _, err := unstructured.NestedSlice(object.Object, "webhooks")
	if err == nil && len(list) == 0 {
		err = errors.New("it has no webhooks")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read MutatingWebhookConfiguration %s: %w", c.name, err)
	}
	return object, list, nil
}

// Publish gives the bundle to all webhooks. It fails with [ErrConflict] when the object has not that version any more.
func (c Configuration) Publish(ctx context.Context, bundle []byte, version string) error {
	object, list, err := c.read(ctx)
	if err != nil {
		return err
	}
	if object.GetResourceVersion() != version {
		return fmt.Errorf("patch MutatingWebhookConfiguration %s: %w", c.name, ErrConflict)
	}
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	// With its version in the patch, the API server refuses it when somebody else was first.
	ops := []operation{{"replace", "/metadata/resourceVersion", version}}
	for i := range list {
		ops = append(ops, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), bundle})
	}
	patch, err := json.Marshal(ops)
	if err != nil {
		return err
	}
	_, err = c.objects.Patch(ctx, c.name, types.JSONPatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patch MutatingWebhookConfiguration %s: %w", c.name, conflict(err))
	}
	return nil
}

func conflict(err error) error {
	if apierrors.IsConflict(err) {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}
