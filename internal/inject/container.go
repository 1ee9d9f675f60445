// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Name of the container and the volume that are added. A pod that has a container of this name is left as it is.
const Name = "multus-vpc-sync"

// Config is what all pods get.
type Config struct {
	Image      string
	PullPolicy corev1.PullPolicy
	// Agent is whether pods reach EC2 by the node agent's sync socket, which is in SyncDir on the node, or by themselves.
	Agent   bool
	SyncDir string
	// Env is added to the container's environment: AWS_REGION where pods do not reach the instance metadata.
	Env       []corev1.EnvVar
	Resources corev1.ResourceRequirements
}

// Operation is one of a JSON patch (RFC 6902).
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Patch is what brings the pod what it wishes for; empty when it has it.
func (c Config) Patch(p Pod, w Wish) []Operation {
	has := func(list []corev1.Container) bool {
		return slices.ContainsFunc(list, func(c corev1.Container) bool { return c.Name == Name })
	}
	if w.Mode == None || has(p.Spec.InitContainers) || has(p.Spec.Containers) {
		return nil
	}
	var ops []Operation
	container := c.container(w)
	switch w.Mode {
	case Init, Native:
		ops = append(ops, first("/spec/initContainers", len(p.Spec.InitContainers), container))
	case Sidecar:
		ops = append(ops, last("/spec/containers", len(p.Spec.Containers), container))
	}
	if c.Agent {
		directory := corev1.HostPathDirectory
		volume := corev1.Volume{Name: Name, VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: c.SyncDir, Type: &directory},
		}}
		if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == Name }) {
			ops = append(ops, last("/spec/volumes", len(p.Spec.Volumes), volume))
		}
	}
	return ops
}

// first and last add a value to a list that may not be there.
func first(path string, length int, value any) Operation {
	if length == 0 {
		return Operation{"add", path, []any{value}}
	}
	return Operation{"add", path + "/0", value}
}

func last(path string, length int, value any) Operation {
	if length == 0 {
		return Operation{"add", path, []any{value}}
	}
	return Operation{"add", path + "/-", value}
}

// container is ours, allowed at the Pod Security level restricted.
func (c Config) container(w Wish) corev1.Container {
	yes, no, nobody := true, false, int64(65532)
	container := corev1.Container{
		Name: Name, Image: c.Image, ImagePullPolicy: c.PullPolicy,
		Command: []string{"/sidecar"},
		Env: append([]corev1.EnvVar{
			field("MULTUS_VPC_NETWORKS", fmt.Sprintf("metadata.annotations['%s']", AnnotationNetworks)),
			field("MULTUS_VPC_NODE_ADDRESS", "status.hostIP"),
		}, c.Env...),
		Resources: c.Resources,
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot: &yes, RunAsUser: &nobody, RunAsGroup: &nobody, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}
	if w.Floating != "" {
		container.Env = append(container.Env, corev1.EnvVar{Name: "MULTUS_VPC_FLOATING", Value: w.Floating})
	}
	via := "ec2"
	if c.Agent {
		via = "agent"
		container.VolumeMounts = []corev1.VolumeMount{{Name: Name, MountPath: c.SyncDir, ReadOnly: true}}
	}
	container.Env = append(container.Env, corev1.EnvVar{Name: "MULTUS_VPC_VIA", Value: via})
	ready := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/sidecar", "ready"}}},
		PeriodSeconds: 1, TimeoutSeconds: 3, FailureThreshold: startupSeconds,
	}
	switch w.Mode {
	case Init:
		container.Command = []string{"/initcontainer"}
	case Sidecar:
		container.ReadinessProbe = ready.DeepCopy()
		container.ReadinessProbe.PeriodSeconds, container.ReadinessProbe.FailureThreshold = 5, 3
	case Native:
		always := corev1.ContainerRestartPolicyAlways
		container.RestartPolicy = &always
		container.StartupProbe = ready
	}
	return container
}

// startupSeconds is how long a native sidecar may take until all is registered: as long as initcontainer does.
const startupSeconds = 120

func field(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
}
