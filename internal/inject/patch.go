// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// annotationDefaultContainer is which container kubectl means when none is named; without it the first.
// https://kubernetes.io/docs/reference/labels-annotations-taints/#kubectl-kubernetes-io-default-container
const annotationDefaultContainer = "kubectl.kubernetes.io/default-container"

// Operation is one of a JSON patch (RFC 6902). All of ours add.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patch is what brings the pod what it wishes for; empty when it has it. Lists grow at their front, where a container of ours
// starts before the others.
func (c Config) patch(pod *corev1.Pod, w Wish) (ops []Operation, warnings []string) {
	want := c.container(pod, w)
	where, list := "/spec/initContainers", pod.Spec.InitContainers
	other, others := "containers", pod.Spec.Containers
	if w.Mode == Sidecar {
		where, list, other, others = "/spec/containers", pod.Spec.Containers, "initContainers", pod.Spec.InitContainers
	}
	named := func(c corev1.Container) bool { return c.Name == want.Name }
	if slices.ContainsFunc(others, named) {
		return nil, []string{fmt.Sprintf("multus-vpc added nothing: the pod has a container %s of its own in %s", want.Name, other)}
	}
	var have corev1.Container
	if at := slices.IndexFunc(list, named); at >= 0 {
		have = list[at]
		ops = fill(fmt.Sprintf("%s/%d", where, at), have, want)
	} else {
		ops = prepend(ops, where, len(list), want)
		if apps := pod.Spec.Containers; w.Mode == Sidecar && len(apps) > 0 && pod.Annotations[annotationDefaultContainer] == "" {
			ops = append(ops, Operation{"add", "/metadata/annotations/" + strings.ReplaceAll(annotationDefaultContainer, "/", "~1"), apps[0].Name})
		}
	}
	if c.needsVolume(pod, have, want) {
		ops = grow(ops, "/spec/volumes", len(pod.Spec.Volumes), c.volume())
	}
	if w.Mode == Sidecar && pod.Spec.RestartPolicy != "" && pod.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		warnings = append(warnings, fmt.Sprintf("a sidecar runs on when the pod's own containers have ended, and the pod never completes: set annotation %s: native", AnnotationSync))
	}
	return ops, warnings
}

// needsVolume reports whether our container mounts a volume that the pod has not yet. Its author may have mounted another one.
func (c Config) needsVolume(pod *corev1.Pod, have, want corev1.Container) bool {
	if len(want.VolumeMounts) == 0 || slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == NameVolume }) {
		return false
	}
	return !slices.ContainsFunc(have.VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.MountPath == want.VolumeMounts[0].MountPath && m.Name != NameVolume
	})
}

// fill adds to a container of our name what its author left out, and changes nothing of what is there.
func fill(path string, have, want corev1.Container) (ops []Operation) {
	add := func(missing bool, key string, value any) {
		if missing {
			ops = append(ops, Operation{"add", path + "/" + key, value})
		}
	}
	add(have.Image == "", "image", want.Image)
	add(len(have.Command) == 0 && len(have.Args) == 0, "command", want.Command)
	add(have.RestartPolicy == nil && want.RestartPolicy != nil, "restartPolicy", want.RestartPolicy)
	add(have.StartupProbe == nil && want.StartupProbe != nil, "startupProbe", want.StartupProbe)
	add(have.ReadinessProbe == nil && want.ReadinessProbe != nil, "readinessProbe", want.ReadinessProbe)
	add(have.Lifecycle == nil && want.Lifecycle != nil, "lifecycle", want.Lifecycle)
	add(have.SecurityContext == nil, "securityContext", want.SecurityContext)
	add(bare(have.Resources) && !bare(want.Resources), "resources", want.Resources)
	env := len(have.Env)
	for _, e := range want.Env {
		if !slices.ContainsFunc(have.Env, func(h corev1.EnvVar) bool { return h.Name == e.Name }) {
			ops = grow(ops, path+"/env", env, e)
			env++
		}
	}
	mounts := len(have.VolumeMounts)
	for _, m := range want.VolumeMounts {
		if !slices.ContainsFunc(have.VolumeMounts, func(h corev1.VolumeMount) bool { return h.MountPath == m.MountPath }) {
			ops = grow(ops, path+"/volumeMounts", mounts, m)
			mounts++
		}
	}
	return ops
}

func bare(r corev1.ResourceRequirements) bool {
	return len(r.Limits) == 0 && len(r.Requests) == 0 && len(r.Claims) == 0
}

// prepend and grow add a value to a list that may not be there.
func prepend(ops []Operation, path string, length int, value any) []Operation {
	if length == 0 {
		return append(ops, Operation{"add", path, []any{value}})
	}
	return append(ops, Operation{"add", path + "/0", value})
}

func grow(ops []Operation, path string, length int, value any) []Operation {
	if length == 0 {
		return append(ops, Operation{"add", path, []any{value}})
	}
	return append(ops, Operation{"add", path + "/-", value})
}
