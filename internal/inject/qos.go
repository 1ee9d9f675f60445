// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// guaranteedCPU is enough to start within a second; guaranteedMemory is for configurations that name none.
const guaranteedCPU, guaranteedMemory = "100m", "64Mi"

// resources keep a pod of the class Guaranteed in it: it would lose its exclusive CPUs otherwise. Where the pod as a whole has
// resources, the container shares them: its own requests could exceed what the author left over, and the API refuse the pod.
// https://kubernetes.io/docs/tasks/administer-cluster/cpu-management-policies/#static-policy
// https://kubernetes.io/docs/tasks/configure-pod-container/assign-pod-level-resources/
func (c Config) resources(pod *corev1.Pod) corev1.ResourceRequirements {
	switch {
	case pod.Spec.Resources != nil:
		return corev1.ResourceRequirements{}
	case !guaranteed(pod):
		return c.Resources
	}
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(guaranteedCPU), corev1.ResourceMemory: resource.MustParse(guaranteedMemory)}
	for _, from := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} { // the limit wins
		if memory, ok := from[corev1.ResourceMemory]; ok {
			limits[corev1.ResourceMemory] = memory
		}
	}
	if cpu, ok := c.Resources.Limits[corev1.ResourceCPU]; ok {
		limits[corev1.ResourceCPU] = cpu
	}
	return corev1.ResourceRequirements{Limits: limits, Requests: limits.DeepCopy()}
}

// guaranteed reports whether every container has a limit of CPU and memory, and requests no less.
// https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/#guaranteed
func guaranteed(pod *corev1.Pod) bool {
	others := 0
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if ours(c.Name) {
			continue
		}
		others++
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, limited := c.Resources.Limits[name]
			request, requested := c.Resources.Requests[name]
			if !limited || limit.IsZero() || requested && limit.Cmp(request) != 0 {
				return false
			}
		}
	}
	return others > 0
}
