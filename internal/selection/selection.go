// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package selection reads the annotation by which a pod selects its networks, as Multus reads it. Init container and sidecar use
// it to know which interfaces to wait for, the injector to find the NetworkAttachmentDefinitions. It promises that every
// network has a name and an interface; whether there is such a network is for others to find out.
package selection

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Annotation is what Multus reads.
const Annotation = "k8s.v1.cni.cncf.io/networks"

// Network is one that a pod selects.
type Network struct {
	Namespace string `json:"namespace"` // empty: the pod's
	Name      string `json:"name"`
	Interface string `json:"interface"`
}

// Parse reads the annotation. It is either JSON or the short form "namespace/name@interface, …", and an interface without a name is
// the next netN.
// https://github.com/k8snetworkplumbingwg/multi-net-spec, Network Selection Annotation, and
// https://github.com/k8snetworkplumbingwg/multus-cni/blob/master/docs/how-to-use.md
func Parse(annotation string) ([]Network, error) {
	annotation = strings.TrimSpace(annotation)
	if annotation == "" {
		return nil, nil
	}
	var networks []Network
	if strings.ContainsAny(annotation, `[{"`) {
		if err := json.Unmarshal([]byte(annotation), &networks); err != nil {
			return nil, fmt.Errorf("networks annotation %q: %w", annotation, err)
		}
	} else {
		for item := range strings.SplitSeq(annotation, ",") {
			n, err := short(strings.TrimSpace(item))
			if err != nil {
				return nil, fmt.Errorf("networks annotation %q: %w", annotation, err)
			}
			networks = append(networks, n)
		}
	}
	for i := range networks {
		if networks[i].Name == "" {
			return nil, fmt.Errorf("networks annotation %q: network %d has no name", annotation, i)
		}
		if networks[i].Interface == "" {
			networks[i].Interface = fmt.Sprintf("net%d", i+1)
		}
	}
	return networks, nil
}

var shortForm = regexp.MustCompile(`^(?:([a-z0-9](?:[-.a-z0-9]*[a-z0-9])?)/)?([a-z0-9](?:[-.a-z0-9]*[a-z0-9])?)(?:@([^\s/:@]{1,15}))?$`)

func short(item string) (Network, error) {
	m := shortForm.FindStringSubmatch(item)
	if m == nil {
		return Network{}, fmt.Errorf("%q is not of the form namespace/name@interface", item)
	}
	return Network{Namespace: m[1], Name: m[2], Interface: m[3]}, nil
}
