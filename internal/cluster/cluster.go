// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package cluster holds the words of Kubernetes that addresses are about: pods with what they say about their interfaces,
// nodes, and networks (NetworkAttachmentDefinitions). Package kube reads them, `vpcctl sweep` judges by them. It knows how the
// annotations are to be understood, and nothing of the API that they come from. Values only.
package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Annotations of pods. The first three are Multus', the last two ours; a network may carry the last one as well.
// https://github.com/k8snetworkplumbingwg/multi-net-spec
const (
	AnnotationNetworks      = "k8s.v1.cni.cncf.io/networks"
	AnnotationDefault       = "v1.multus-cni.io/default-network"
	AnnotationNetworkStatus = "k8s.v1.cni.cncf.io/network-status"
	// AnnotationOldStatus is what Multus wrote until 3.8.
	AnnotationOldStatus = "k8s.v1.cni.cncf.io/networks-status"
	AnnotationFloating  = "multus-vpc.io/floating"
)

// floatingVariable is how a container of ours is told which addresses float.
const floatingVariable = "MULTUS_VPC_FLOATING"

// Pod is a pod as the API shows it.
type Pod struct {
	Namespace, Name string
	Node            string    // empty until it is scheduled
	Ended           bool      // it succeeded or failed, and keeps no address
	Started         time.Time // when its kubelet took it up; zero before
	HostNetwork     bool
	IPs             []netip.Addr
	Annotations     map[string]string
	Containers      []Container
}

func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// Container is a container or init container of a pod.
type Container struct {
	Command []string // its command and its arguments
	Env     map[string]string
}

// Node is a worker as Kubernetes knows it.
type Node struct {
	Name     string
	Instance eni.InstanceID // empty when the node does not say
	Lost     bool           // its kubelet says that it is not ready, or has not been heard of
}

// InstanceOf reads a node's provider ID, "aws:///us-west-2a/i-0123456789abcdef0"; empty when it is no instance of EC2.
func InstanceOf(providerID string) eni.InstanceID {
	if id := path.Base(providerID); strings.HasPrefix(providerID, "aws://") && strings.HasPrefix(id, "i-") {
		return eni.InstanceID(id)
	}
	return ""
}

// Attached are the addresses that the pod's interfaces got from CNI: those in its status, and those that Multus noted. written
// is false while Multus has noted nothing. The error says that what is noted cannot be read.
func (p Pod) Attached() (addrs []netip.Addr, written bool, err error) {
	addrs = slices.Clone(p.IPs)
	for _, key := range []string{AnnotationNetworkStatus, AnnotationOldStatus} {
		text := p.Annotations[key]
		if text == "" {
			continue
		}
		var interfaces []struct {
			IPs []string `json:"ips"`
		}
		if err = json.Unmarshal([]byte(text), &interfaces); err != nil {
			return addrs, true, fmt.Errorf("pod %s: annotation %s: %w", p, key, err)
		}
		written = true
		for _, i := range interfaces {
			for _, ip := range i.IPs {
				a, err := ParseAddr(ip)
				if err != nil {
					return addrs, true, fmt.Errorf("pod %s: annotation %s: %w", p, key, err)
				}
				addrs = append(addrs, a)
			}
		}
	}
	return addrs, written, nil
}

// ParseAddr reads an address with or without a prefix length.
func ParseAddr(s string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr().Unmap(), nil
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err
}

// Multus reports whether the pod asks for networks beside or instead of the cluster's own.
func (p Pod) Multus() bool {
	return !p.HostNetwork && (strings.TrimSpace(p.Annotations[AnnotationNetworks]) != "" || p.Annotations[AnnotationDefault] != "")
}

// Floating are the ranges of addresses that may move to the pod without Multus' doing, as the pod and its sidecar say. The
// error says that they cannot be read.
func (p Pod) Floating() ([]attachment.Range, error) {
	texts := []string{p.Annotations[AnnotationFloating]}
	for _, c := range p.Containers {
		if c.registers() {
			texts = append(texts, c.Env[floatingVariable], c.flag("floating"))
		}
	}
	ranges, err := ParseRanges(strings.Join(texts, ","))
	if err != nil {
		return nil, fmt.Errorf("pod %s: floating addresses: %w", p, err)
	}
	return ranges, nil
}

// ParseRanges reads ranges that commas or blanks part.
func ParseRanges(list string) (ranges []attachment.Range, err error) {
	for item := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		r, err := attachment.ParseRange(item)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// Registers reports whether the pod may have addresses that Multus has not noted: one of its containers keeps whatever its
// interfaces carry registered. Our sidecar is known by its program, that of the AWS samples by the argument "sidecar".
// https://github.com/aws-samples/eks-automated-ipmgmt-multus-pods
func (p Pod) Registers() bool {
	return p.Multus() && slices.ContainsFunc(p.Containers, Container.registers)
}

func (c Container) registers() bool {
	words := strings.Fields(strings.Join(c.Command, " "))
	return len(words) > 0 && path.Base(words[0]) == "sidecar" || slices.Contains(words, "sidecar")
}

// flag is the value of a flag of the container's command, as package flag reads it; empty without one.
func (c Container) flag(name string) string {
	for i, arg := range c.Command {
		key, value, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		switch {
		case !strings.HasPrefix(arg, "-") || key != name:
		case given:
			return value
		case i+1 < len(c.Command):
			return c.Command[i+1]
		}
	}
	return ""
}
