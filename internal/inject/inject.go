// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package inject decides whether a pod gets an init container or a sidecar that registers its addresses in EC2, and what exactly
// is added to it. The injector's admission webhook uses it. It only adds: what the pod's author wrote stays as it is, also
// inside a container of our name, so that a second look at the result adds nothing. What the pod's namespace and networks
// say comes through a [Cluster]; how pods arrive and answers leave does not belong here.
package inject

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/multus-vpc/multus-vpc/internal/selection"
)

// Annotations of pods. All but the last two may stand on a NetworkAttachmentDefinition as well, for every pod that uses it.
const (
	// AnnotationSync asks for a container of ours: see [Mode].
	AnnotationSync = "multus-vpc.io/sync"
	// AnnotationFloating are the ranges of addresses that move with the pod that carries them.
	AnnotationFloating = "multus-vpc.io/floating"
	// AnnotationVia is how the container reaches EC2: see [Via].
	AnnotationVia = "multus-vpc.io/via"
	// AnnotationSamples is how pods of the AWS samples ask for a sidecar.
	// https://github.com/aws-samples/eks-install-guide-for-multus
	AnnotationSamples = "aws-multus-eni-mgmt-sidecar/inject"
	// AnnotationNetworks is what Multus reads.
	AnnotationNetworks = selection.Annotation
	// annotationMirror marks what the API shows of a static pod; the kubelet made it already.
	annotationMirror = "kubernetes.io/config.mirror"
)

// maxNetworks is more than an instance has ENIs, and bounds what one pod can make us ask of the API.
const maxNetworks = 64

// LabelEnforce is a namespace's Pod Security level.
// https://kubernetes.io/docs/concepts/security/pod-security-admission/
const LabelEnforce = "pod-security.kubernetes.io/enforce"

// Cluster is what the Kubernetes API says. Both may be a few seconds old.
type Cluster interface {
	// NetworkAnnotations are those of a NetworkAttachmentDefinition; false when there is none of that name.
	NetworkAnnotations(ctx context.Context, namespace, name string) (map[string]string, bool, error)
	// NamespaceLabels are those of a namespace.
	NamespaceLabels(ctx context.Context, name string) (map[string]string, error)
}

// Injector reviews pods. Its fields do not change; it may be used concurrently.
type Injector struct {
	Config  Config
	Cluster Cluster
}

// Outcome is what comes of a review.
type Outcome struct {
	Mode     Mode
	Patch    []Operation // what to add; empty when nothing is to be added
	Warnings []string    // for the person who made the pod
	Refused  error       // why the pod cannot be, and what to do
}

// Review decides about a pod that is being made in the namespace. The error is the API's, which could not be asked: whoever makes
// the pod has to try again.
func (i *Injector) Review(ctx context.Context, namespace string, object []byte) (Outcome, error) {
	var pod corev1.Pod
	if err := json.Unmarshal(object, &pod); err != nil {
		return Outcome{}, fmt.Errorf("read the pod: %w", err)
	}
	if _, mirror := pod.Annotations[annotationMirror]; mirror || pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows {
		return Outcome{Mode: None}, nil
	}
	wish, err := wanted(pod.Annotations, nil)
	if err != nil {
		return Outcome{Mode: None, Refused: err}, nil
	}
	if pod.Annotations[AnnotationNetworks] == "" {
		out := Outcome{Mode: None}
		if wish.Mode != None {
			out.warn("the pod asks for a multus-vpc %s, but has no annotation %s: nothing was added", wish.Mode, AnnotationNetworks)
		}
		return out, nil
	}
	if wish.Mode == None && wish.explicit {
		return Outcome{Mode: None}, nil
	}
	return i.withNetworks(ctx, namespace, &pod)
}

// withNetworks goes on with a pod that selects networks and does not say no.
func (i *Injector) withNetworks(ctx context.Context, namespace string, pod *corev1.Pod) (Outcome, error) {
	out := Outcome{Mode: None}
	networks, err := selection.Parse(pod.Annotations[AnnotationNetworks])
	if err != nil {
		out.warn("multus-vpc added nothing: %v", err)
		return out, nil
	}
	named := map[string]selection.Network{}
	for _, n := range networks {
		if n.Namespace == "" {
			n.Namespace = namespace
		}
		named[n.Namespace+"/"+n.Name] = n
	}
	if len(named) > maxNetworks {
		out.warn("multus-vpc added nothing: the pod selects %d networks, more than %d", len(named), maxNetworks)
		return out, nil
	}
	var selected []network
	for _, name := range slices.Sorted(maps.Keys(named)) {
		found, ok, lookupErr := i.Cluster.NetworkAnnotations(ctx, named[name].Namespace, named[name].Name)
		if lookupErr != nil {
			return Outcome{}, fmt.Errorf("read NetworkAttachmentDefinition %s: %w", name, lookupErr)
		}
		if !ok {
			out.warn("there is no NetworkAttachmentDefinition %s", name)
		}
		selected = append(selected, network{name, found})
	}
	wish, err := wanted(pod.Annotations, selected)
	if err != nil {
		out.Refused = err
		return out, nil
	}
	if pod.Spec.HostNetwork && !wish.explicit { // no CNI plugin is called for it, so the annotation means nothing
		return out, nil
	}
	if wish.Mode == None {
		if wish.Floating != "" {
			out.warn("annotation %s has no effect without %s: sidecar or native", AnnotationFloating, AnnotationSync)
		}
		return out, nil
	}
	out.Mode = wish.Mode
	if out.Refused, err = i.refusal(ctx, namespace, pod, wish); out.Refused != nil || err != nil {
		return out, err
	}
	var warnings []string
	out.Patch, warnings = i.Config.patch(pod, wish)
	out.Warnings = append(out.Warnings, warnings...)
	return out, nil
}

// refusal says why a pod that asks cannot have it, and what to do.
func (i *Injector) refusal(ctx context.Context, namespace string, pod *corev1.Pod, w Wish) (refused, err error) {
	switch {
	case pod.Spec.HostNetwork:
		return fmt.Errorf("a pod in the host's network (hostNetwork: true) has no interfaces of its own to register; remove hostNetwork, or set annotation %s: none", AnnotationSync), nil
	case w.Floating != "" && w.Mode == Init:
		return fmt.Errorf("floating addresses (%s) move while the pod runs, when an init container has long ended; set annotation %s: native or sidecar", w.Floating, AnnotationSync), nil
	case i.Config.via(w) != ViaAgent:
		return nil, nil
	}
	labels, err := i.Cluster.NamespaceLabels(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", namespace, err)
	}
	if level := labels[LabelEnforce]; level == "baseline" || level == "restricted" {
		return fmt.Errorf("namespace %s enforces the Pod Security level %q, which forbids the hostPath volume by which a pod reaches the node agent; set annotation %s: ec2 (the pod then calls EC2 itself, and its service account needs a role for that), use a network of type vpcipvlan, which needs no container, or move the pod to a namespace of level privileged", namespace, level, AnnotationVia), nil
	}
	return nil, nil
}

func (o *Outcome) warn(format string, args ...any) {
	o.Warnings = append(o.Warnings, fmt.Sprintf(format, args...))
}
