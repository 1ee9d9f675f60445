// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"fmt"
	"path"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Names of what is added.
const (
	NameInit    = "multus-vpc-init" // the init container of mode init
	NameSidecar = "multus-vpc-sync" // the sidecar, native or not
	NameVolume  = "multus-vpc-sync" // the folder of the sync socket
)

const (
	// socketName is the node agent's sync socket in its folder.
	socketName = "sync.sock"
	// startup is how long the pod's containers wait until all is registered: as long as initcontainer does.
	startup = 2 * time.Minute
	// nobody is the user of the distroless images, and has no name on any node.
	nobody = 65532
	// grace is how many seconds sidecar takes for itself of the 30 that a pod has by default to end.
	grace, usualGrace = 20, 30
)

// Config is what all pods get.
type Config struct {
	Image      string // has the programs /initcontainer and /sidecar
	PullPolicy corev1.PullPolicy
	// Via is how pods reach EC2 that do not say it themselves. SyncDir is the folder of the node agent's sync socket.
	Via     Via
	SyncDir string
	// Env is added to the container's environment: AWS_REGION where pods do not reach the instance metadata.
	Env       []corev1.EnvVar
	Resources corev1.ResourceRequirements
}

func (c Config) via(w Wish) Via {
	if w.Via != "" {
		return w.Via
	}
	return c.Via
}

// container is ours, allowed at the Pod Security level restricted.
func (c Config) container(pod *corev1.Pod, w Wish) corev1.Container {
	yes, no, user := true, false, int64(nobody)
	container := corev1.Container{
		Name: NameSidecar, Image: c.Image, ImagePullPolicy: c.PullPolicy, Command: []string{"/sidecar"},
		Env:       c.environment(pod, w),
		Resources: c.resources(pod),
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
	if c.via(w) == ViaAgent {
		container.VolumeMounts = []corev1.VolumeMount{{Name: NameVolume, MountPath: c.SyncDir, ReadOnly: true}}
	}
	switch w.Mode {
	case Init:
		container.Name, container.Command = NameInit, []string{"/initcontainer"}
	case Sidecar:
		container.ReadinessProbe = ready(5*time.Second, 3)
		// The kubelet starts containers in their order, each after the postStart hook of the one before.
		container.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
			Exec: &corev1.ExecAction{Command: []string{"/sidecar", "--wait=" + startup.String(), "ready"}},
		}}
	case Native:
		always := corev1.ContainerRestartPolicyAlways
		container.RestartPolicy = &always
		container.StartupProbe = ready(time.Second, int32(startup/time.Second))
	}
	return container
}

// environment is what the programs read.
func (c Config) environment(pod *corev1.Pod, w Wish) []corev1.EnvVar {
	env := []corev1.EnvVar{
		field("MULTUS_VPC_NETWORKS", fmt.Sprintf("metadata.annotations['%s']", AnnotationNetworks)),
		field("MULTUS_VPC_NODE_ADDRESS", "status.hostIP"),
		{Name: "MULTUS_VPC_VIA", Value: string(c.via(w))},
	}
	if c.via(w) == ViaAgent {
		env = append(env, corev1.EnvVar{Name: "MULTUS_VPC_SYNC_SOCKET", Value: path.Join(c.SyncDir, socketName)})
	}
	if w.Floating != "" {
		env = append(env, corev1.EnvVar{Name: "MULTUS_VPC_FLOATING", Value: w.Floating})
	}
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil && w.Mode != Init && *s < usualGrace {
		env = append(env, corev1.EnvVar{Name: "MULTUS_VPC_GRACE", Value: fmt.Sprintf("%ds", max(*s*grace/usualGrace, 1))})
	}
	for _, e := range c.Env {
		if !slices.ContainsFunc(env, func(o corev1.EnvVar) bool { return o.Name == e.Name }) {
			env = append(env, e)
		}
	}
	return env
}

// volume has the sync socket. Its type makes the kubelet wait for the agent to have made the folder.
func (c Config) volume() corev1.Volume {
	directory := corev1.HostPathDirectory
	return corev1.Volume{Name: NameVolume, VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: c.SyncDir, Type: &directory},
	}}
}

func ours(name string) bool { return name == NameInit || name == NameSidecar }

// ready is the probe that asks the sidecar whether all is registered.
func ready(period time.Duration, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/sidecar", "ready"}}},
		PeriodSeconds: int32(period / time.Second), TimeoutSeconds: 3, FailureThreshold: failures,
	}
}

func field(name, at string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: at}}}
}
