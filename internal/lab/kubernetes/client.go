// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// StatusError is the API server's refusal.
// https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
type StatusError struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (e *StatusError) Error() string { return fmt.Sprintf("%s (%d %s)", e.Message, e.Code, e.Reason) }

// Do sends one request as the administrator. It marshals in as JSON unless it is nil, and unmarshals the answer into out
// unless that is nil. A refusal is a [*StatusError].
func (c *Cluster) Do(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	return c.send(ctx, method, path, "application/json", body, out)
}

func (c *Cluster) send(ctx context.Context, method, path, contentType string, body []byte, out any) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s %s: %w", method, path, err)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("Content-Type", contentType)
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		refusal := &StatusError{Code: resp.StatusCode}
		if json.Unmarshal(answer, refusal) != nil { // readyz answers in words
			refusal.Message = strings.TrimSpace(string(answer))
		}
		return refusal
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// separator stands between the documents of a YAML stream.
var separator = regexp.MustCompile(`(?m)^---[ \t]*(?:#.*)?$`)

// manifest is what [Cluster.Apply] has to know of an object.
type manifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	// Spec of a CustomResourceDefinition.
	Spec struct {
		Group string `json:"group"`
		Names struct {
			Plural string `json:"plural"`
		} `json:"names"`
		Versions []struct {
			Name   string `json:"name"`
			Served bool   `json:"served"`
		} `json:"versions"`
	} `json:"spec"`
}

// Apply makes the objects of a YAML stream, or changes them, in its order: kubectl apply --server-side. An object without
// a namespace goes to "default". After a CustomResourceDefinition it waits until the new kind is served.
// https://kubernetes.io/docs/reference/using-api/server-side-apply/
func (c *Cluster) Apply(ctx context.Context, stream []byte) error {
	for _, document := range separator.Split(string(stream), -1) {
		body, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		if string(body) == "null" {
			continue
		}
		var m manifest
		// What is another kind's may have another form where a CustomResourceDefinition has its spec.
		if err := json.Unmarshal(body, &m); err != nil && m.Metadata.Name == "" {
			return fmt.Errorf("apply: %w", err)
		}
		if err := c.apply(ctx, m, body); err != nil {
			return fmt.Errorf("apply %s %s: %w", m.Kind, m.Metadata.Name, err)
		}
	}
	return nil
}

func (c *Cluster) apply(ctx context.Context, m manifest, body []byte) error {
	at, err := c.path(ctx, m)
	if err != nil {
		return err
	}
	query := url.Values{"fieldManager": {"lab"}, "force": {"true"}}
	if err := c.send(ctx, http.MethodPatch, at+"?"+query.Encode(), "application/apply-patch+yaml", body, nil); err != nil {
		return err
	}
	if m.Kind != "CustomResourceDefinition" {
		return nil
	}
	for _, v := range m.Spec.Versions {
		if !v.Served {
			continue
		}
		list := path.Join("/apis", m.Spec.Group, v.Name, m.Spec.Names.Plural)
		err := c.await(ctx, func(ctx context.Context) error { return c.Do(ctx, http.MethodGet, list+"?limit=1", nil, nil) })
		if err != nil {
			return err
		}
	}
	return nil
}

// path is where the object is, by the API server's own list of resources.
func (c *Cluster) path(ctx context.Context, m manifest) (string, error) {
	if m.Metadata.Name == "" {
		return "", errors.New("the object has no name")
	}
	base := "/apis/" + m.APIVersion
	if !strings.Contains(m.APIVersion, "/") {
		base = "/api/" + m.APIVersion
	}
	var known struct {
		Resources []struct {
			Name       string `json:"name"`
			Kind       string `json:"kind"`
			Namespaced bool   `json:"namespaced"`
		} `json:"resources"`
	}
	if err := c.Do(ctx, http.MethodGet, base, nil, &known); err != nil {
		return "", err
	}
	for _, r := range known.Resources {
		switch {
		case r.Kind != m.Kind || strings.Contains(r.Name, "/"): // a subresource has its parent's name before a slash
		case !r.Namespaced:
			return path.Join(base, r.Name, m.Metadata.Name), nil
		case m.Metadata.Namespace == "":
			return path.Join(base, "namespaces/default", r.Name, m.Metadata.Name), nil
		default:
			return path.Join(base, "namespaces", m.Metadata.Namespace, r.Name, m.Metadata.Name), nil
		}
	}
	return "", fmt.Errorf("%s has no kind %s", m.APIVersion, m.Kind)
}
