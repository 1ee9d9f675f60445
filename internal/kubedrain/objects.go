// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubedrain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
)

// metadata, node and pod are what is read of objects.
type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	UID         string            `json:"uid,omitempty"`
	Version     string            `json:"resourceVersion,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owners      []owner           `json:"ownerReferences,omitempty"`
	Deleted     *metav1.Time      `json:"deletionTimestamp,omitempty"`
}

type owner struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Controller bool   `json:"controller"`
}

type node struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		ProviderID    string `json:"providerID"`
		Unschedulable bool   `json:"unschedulable"`
	} `json:"spec"`
}

type pod struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		Grace int64 `json:"terminationGracePeriodSeconds"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

// annotationCordoned is ours on the nodes that we made unschedulable: other people's cordons are theirs to undo.
const annotationCordoned = "multus-vpc.io/cordoned"

func (n node) home() cluster.Home {
	h := cluster.Home{Name: n.Metadata.Name, Version: n.Metadata.Version, Unschedulable: n.Spec.Unschedulable}
	if at, err := time.Parse(time.RFC3339Nano, n.Metadata.Annotations[annotationCordoned]); err == nil && n.Spec.Unschedulable {
		h.Cordoned = at
	}
	return h
}

// annotationMirror is the kubelet's on the pods that it runs from files.
// https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror
const annotationMirror = "kubernetes.io/config.mirror"

func (p pod) resident() cluster.Resident {
	r := cluster.Resident{
		Namespace: p.Metadata.Namespace, Name: p.Metadata.Name, UID: p.Metadata.UID,
		Ended: p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed",
		Grace: time.Duration(p.Spec.Grace) * time.Second,
		DaemonSet: slices.ContainsFunc(p.Metadata.Owners, func(o owner) bool {
			return o.Controller && o.Kind == "DaemonSet" && strings.HasPrefix(o.APIVersion, "apps/")
		}),
	}
	_, r.Mirror = p.Metadata.Annotations[annotationMirror]
	if p.Metadata.Deleted != nil {
		r.Leaves = p.Metadata.Deleted.Time // the API server has added the grace
	}
	return r
}

// eviction and deleteOptions are what is sent. A pod of the same name that has come since is another one.
type eviction struct {
	APIVersion    string        `json:"apiVersion"`
	Kind          string        `json:"kind"`
	Metadata      metadata      `json:"metadata"`
	DeleteOptions deleteOptions `json:"deleteOptions"`
}

type deleteOptions struct {
	APIVersion         string        `json:"apiVersion,omitempty"`
	Kind               string        `json:"kind,omitempty"`
	GracePeriodSeconds *int64        `json:"gracePeriodSeconds,omitempty"`
	Preconditions      preconditions `json:"preconditions"`
}

type preconditions struct {
	UID string `json:"uid"`
}

// list reads all pages, one at a time.
func list[T any](ctx context.Context, request func() *rest.Request, each func(T)) error {
	for next := ""; ; {
		r := request().MaxRetries(0)
		if next != "" {
			r.Param("continue", next)
		}
		answer := r.Do(ctx)
		if err := answer.Error(); err != nil {
			return translate(err)
		}
		text, err := answer.Raw()
		if err != nil {
			return err
		}
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []T `json:"items"`
		}
		if err := json.Unmarshal(text, &page); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		for _, item := range page.Items {
			each(item)
		}
		if next = page.Metadata.Continue; next == "" {
			return nil
		}
	}
}

// translate makes our sentinels of the API's errors, which stay in the chain.
func translate(err error) error {
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // it is another one now, or has changed
		return fmt.Errorf("%w: %w", cluster.ErrGone, err)
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return fmt.Errorf("%w: %w", cluster.ErrDenied, err)
	}
	return err
}

// causeBudget is a reason in the details of a refused eviction.
// https://pkg.go.dev/k8s.io/api/policy/v1#pkg-constants
const causeBudget metav1.CauseType = "DisruptionBudget"

// refusal is translate for evictions: 429 is a PodDisruptionBudget's refusal or the API server's own fairness, 403 RBAC's, an
// admission webhook's, or a namespace's that ends. A pod with more than one budget is answered by 500.
// https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/registry/core/pod/storage/eviction.go
func refusal(err error) error {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return err
	}
	s := answer.Status()
	switch s.Code {
	case http.StatusTooManyRequests, http.StatusForbidden, http.StatusInternalServerError:
	default:
		return translate(err)
	}
	refused := &cluster.RefusedError{Why: s.Message}
	if s.Details != nil {
		refused.After = time.Duration(s.Details.RetryAfterSeconds) * time.Second
		for _, c := range s.Details.Causes {
			if c.Type == causeBudget { // it names the budget, the message does not
				refused.Why = c.Message
			}
		}
	}
	return refused
}
