// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package inject decides whether a pod gets an init container or a sidecar that registers its addresses in EC2, and what exactly
// is added to it. The injector's admission webhook uses it. It is pure: what the pod's namespace and networks say is handed
// in, what comes out is a JSON patch, a reason to refuse the pod, or nothing.
package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Annotations of pods; all but the last may stand on a NetworkAttachmentDefinition as well, for every pod that uses it.
const (
	// AnnotationSync asks for a container of ours: see [Mode].
	AnnotationSync = "multus-vpc.io/sync"
	// AnnotationFloating are the ranges of addresses that move with the pod that carries them.
	AnnotationFloating = "multus-vpc.io/floating"
	// AnnotationSamples is how pods of the AWS samples ask for a sidecar.
	// https://github.com/aws-samples/eks-install-guide-for-multus
	AnnotationSamples = "aws-multus-eni-mgmt-sidecar/inject"
	// AnnotationNetworks is what Multus reads.
	AnnotationNetworks = "k8s.v1.cni.cncf.io/networks"
	// LabelEnforce is a namespace's Pod Security level.
	// https://kubernetes.io/docs/concepts/security/pod-security-admission/
	LabelEnforce = "pod-security.kubernetes.io/enforce"
)

// Mode is what a pod asks for.
type Mode string

// The modes, the weakest first.
const (
	None    Mode = "none"    // nothing, though a NAD asks
	Init    Mode = "init"    // registered once, before the pod's containers start
	Sidecar Mode = "sidecar" // kept registered beside them, floating addresses included
	Native  Mode = "native"  // both in one: an init container that stays, Kubernetes 1.29
)

func modes() []Mode { return []Mode{None, Init, Sidecar, Native} }

// Pod is what there is to know about a pod that is being made.
type Pod struct {
	*corev1.Pod
	// Enforce is the value of [LabelEnforce] of its namespace.
	Enforce string
	// Networks are the annotations of the NADs that the pod names.
	Networks []map[string]string
}

// Wish is what a pod is to have.
type Wish struct {
	Mode     Mode
	Floating string
}

// Wanted says what the pod and its networks ask for. The pod has the last word. Among networks the strongest mode counts, and
// the floating ranges add up. The error names an annotation that cannot be understood.
func Wanted(p Pod) (Wish, error) {
	w := Wish{Mode: None}
	var errs []error
	for _, annotations := range p.Networks {
		w, errs = merge(w, annotations, errs)
	}
	own := Wish{Mode: None}
	own, errs = merge(own, p.Annotations, errs)
	if _, says := p.Annotations[AnnotationSync]; says || own.Mode != None {
		w.Mode = own.Mode
	}
	if own.Floating != "" {
		w.Floating = own.Floating
	}
	return w, errors.Join(errs...)
}

// merge adds what a set of annotations asks for.
func merge(w Wish, annotations map[string]string, errs []error) (Wish, []error) {
	if v, ok := annotations[AnnotationSync]; ok {
		mode := Mode(v)
		if !slices.Contains(modes(), mode) {
			errs = append(errs, fmt.Errorf("annotation %s: %q is not one of %q", AnnotationSync, v, modes()))
		} else if slices.Index(modes(), mode) > slices.Index(modes(), w.Mode) {
			w.Mode = mode
		}
	} else if asks(annotations[AnnotationSamples]) && w.Mode == None {
		w.Mode = Sidecar
	}
	if v := annotations[AnnotationFloating]; v != "" {
		for item := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == ',' || r == ' ' }) {
			if _, err := attachment.ParseRange(item); err != nil {
				errs = append(errs, fmt.Errorf("annotation %s: %w", AnnotationFloating, err))
			}
		}
		w.Floating = strings.TrimPrefix(w.Floating+","+v, ",")
	}
	return w, errs
}

// asks are the values that the samples' injector takes for yes.
func asks(value string) bool {
	return slices.Contains([]string{"y", "yes", "true", "on"}, strings.ToLower(strings.TrimSpace(value)))
}

// Refusal says why a pod that asks cannot have it, and what to do.
func (c Config) Refusal(p Pod) error {
	switch {
	case p.Spec.HostNetwork:
		return errors.New("a pod in the host's network (hostNetwork: true) has no interfaces of its own to register: remove " + AnnotationSync + ", or hostNetwork")
	case c.Agent && (p.Enforce == "baseline" || p.Enforce == "restricted"):
		return fmt.Errorf("namespace %s enforces the Pod Security level %q, which forbids the hostPath volume by which a pod reaches the node agent: run the injector with --via=ec2 (pods then need a role with EC2 permissions), or use the NAD type vpcipvlan, which needs no container", p.Namespace, p.Enforce)
	}
	return nil
}
