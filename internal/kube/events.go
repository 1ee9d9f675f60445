// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Event is what `kubectl describe pod` shows of a pod, and the API server keeps for an hour.
type Event struct {
	Pod     attachment.Pod
	Warning bool
	Reason  string // one word in CamelCase, up to 128 characters
	Message string // what it says, cut after 1024 bytes
	Time    time.Time
	Node    string // that reports it; may be empty
}

// maxMessage is the longest message that the API server takes.
// https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/events.go
const maxMessage = 1024

// terminating is the cause where a namespace that is being deleted takes no more objects: forbidden by no role.
// https://github.com/kubernetes/api/blob/master/core/v1/types.go, NamespaceTerminatingCause
const terminating metav1.CauseType = "NamespaceTerminating"

// Record makes an Event. It is made once for each call: the caller sees to it that there are few. Needed of RBAC: create on events.
func (c *Client) Record(ctx context.Context, e Event) error {
	if wrong := misnamed(e.Pod); wrong != "" {
		return fmt.Errorf("event of pod %q in namespace %q: no such name can be: %s", e.Pod.Name, e.Pod.Namespace, wrong)
	}
	events := c.objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: "events"})
	_, err := events.Namespace(e.Pod.Namespace).Create(ctx, e.object(), metav1.CreateOptions{})
	switch {
	case apierrors.IsForbidden(err) && !apierrors.HasStatusCause(err, terminating):
		return fmt.Errorf("create an event of pod %s/%s: %w; give the agent's service account create on events", e.Pod.Namespace, e.Pod.Name, err)
	case err != nil:
		return fmt.Errorf("create an event of pod %s/%s: %w", e.Pod.Namespace, e.Pod.Name, err)
	}
	return nil
}

// object is the event in core/v1. Its name is the pod's with the time, as everybody's are; the pod is cut off where the name would be too
// long for an object.
func (e Event) object() *unstructured.Unstructured {
	kind, message := "Normal", e.Message
	if e.Warning {
		kind = "Warning"
	}
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") // the cut may have hit a character
	}
	pod := e.Pod.Name
	if room := validation.DNS1123SubdomainMaxLength - len(".0123456789abcdef"); len(pod) > room {
		pod = strings.TrimRight(pod[:room], "-.")
	}
	name := fmt.Sprintf("%s.%x", pod, e.Time.UnixNano())
	at := e.Time.UTC().Format(time.RFC3339)
	source := map[string]any{"component": "multus-vpc-agent"}
	if e.Node != "" {
		source["host"] = e.Node
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata": map[string]any{"name": name, "namespace": e.Pod.Namespace},
		"involvedObject": map[string]any{
			"apiVersion": "v1", "kind": "Pod", "namespace": e.Pod.Namespace, "name": e.Pod.Name, "uid": e.Pod.UID,
		},
		"type": kind, "reason": e.Reason, "message": message, "source": source,
		"firstTimestamp": at, "lastTimestamp": at, "count": int64(1),
	}}
}
