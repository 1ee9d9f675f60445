// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubernetes

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// User is who has a token.
type User struct {
	Name   string   `json:"username"`
	Groups []string `json:"groups"`
}

// serveReviews answers the API server's questions about tokens, and returns the file that tells it where. It is a webhook, as the one
// by which a cluster of EKS knows IAM's principals.
// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication
func (c *Cluster) serveReviews(ctx context.Context, authenticate func(string) (User, error)) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.address.Addr().String()+":0")
	if err != nil {
		return "", err
	}
	c.webhook = &http.Server{Handler: reviewer(authenticate), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = c.webhook.Serve(listener) }() // until Close
	file := filepath.Join(c.dir, "webhook.kubeconfig")
	type object = map[string]any
	config, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "lab",
		"clusters": []object{{"name": "lab", "cluster": object{"server": "http://" + listener.Addr().String() + "/"}}},
		"contexts": []object{{"name": "lab", "context": object{"cluster": "lab"}}},
	})
	if err != nil {
		return "", err
	}
	return file, os.WriteFile(file, config, 0o600)
}

// reviewer answers one question.
func reviewer(authenticate func(string) (User, error)) http.HandlerFunc {
	type status struct {
		Authenticated bool   `json:"authenticated"`
		User          User   `json:"user"`
		Error         string `json:"error,omitempty"`
	}
	return func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Spec       struct {
				Token string `json:"token,omitempty"`
			} `json:"spec"`
			Status status `json:"status"`
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		user, err := authenticate(review.Spec.Token)
		review.Spec.Token, review.Status = "", status{Authenticated: err == nil, User: user}
		if err != nil {
			review.Status.Error = err.Error()
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review) // the API server has gone
	}
}
