// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// podIndexLabel is the ordinal of a StatefulSet's pod, since Kubernetes 1.28.
// https://kubernetes.io/docs/reference/labels-annotations-taints/#apps-kubernetes-io-pod.index
const podIndexLabel = "apps.kubernetes.io/pod-index"

// Ordinal says which StatefulSet controls the pod and which of its pods it is: ("db", 3) for db-3. A pod that no
// StatefulSet controls is no error, its StatefulSet is empty. It is an error when the API has no such pod, or has one
// with another UID than the one given (some runtimes give none): then the pod that asks has been replaced.
//
// The ordinal is the one in the pod's name, which nobody can change; a pod-index label that says otherwise is an error.
// Needed of RBAC: get on pods.
func (c *Client) Ordinal(ctx context.Context, pod attachment.Pod) (statefulSet string, ordinal int, err error) {
	if wrong := misnamed(pod); wrong != "" {
		return "", 0, fmt.Errorf("get pod %q in namespace %q: no such name can be: %s", pod.Name, pod.Namespace, wrong)
	}
	pods := c.metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"})
	found, err := pods.Namespace(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		return "", 0, fmt.Errorf("get pod %s/%s: %w; give the agent's service account get on pods", pod.Namespace, pod.Name, err)
	case err != nil:
		return "", 0, fmt.Errorf("get pod %s/%s: %w", pod.Namespace, pod.Name, err)
	case pod.UID != "" && string(found.UID) != pod.UID:
		return "", 0, fmt.Errorf("pod %s/%s has UID %s, not %s: it has been replaced", pod.Namespace, pod.Name, found.UID, pod.UID)
	}
	statefulSet, ordinal, err = ordinalOf(found.ObjectMeta)
	if err != nil {
		return "", 0, fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return statefulSet, ordinal, nil
}

// misnamed says why no pod can have such a name or namespace, or nothing. The clients resolve "..", and names come from the runtime's
// arguments.
func misnamed(pod attachment.Pod) string {
	if wrong := append(validation.IsDNS1123Label(pod.Namespace), validation.IsDNS1123Subdomain(pod.Name)...); len(wrong) > 0 {
		return wrong[0]
	}
	return ""
}

// ordinalOf reads which of a StatefulSet's pods a pod is.
func ordinalOf(pod metav1.ObjectMeta) (statefulSet string, ordinal int, err error) {
	owner := metav1.GetControllerOfNoCopy(&pod)
	if owner == nil || owner.Kind != "StatefulSet" || !strings.HasPrefix(owner.APIVersion, "apps/") {
		return "", 0, nil
	}
	suffix, ok := strings.CutPrefix(pod.Name, owner.Name+"-")
	n, err := strconv.ParseUint(suffix, 10, 31) // an int32 in the API
	if !ok || err != nil || strconv.FormatUint(n, 10) != suffix {
		return "", 0, fmt.Errorf("StatefulSet %s controls it, though its name is not %[1]s and a number", owner.Name)
	}
	if label, ok := pod.Labels[podIndexLabel]; ok && label != suffix {
		return "", 0, fmt.Errorf("label %s is %q, though the name ends in %s: somebody changed it", podIndexLabel, label, suffix)
	}
	return owner.Name, int(n), nil
}
