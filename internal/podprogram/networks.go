// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// promised reads the annotation k8s.v1.cni.cncf.io/networks: the interfaces that Multus gives the pod. It is either JSON or the
// short form "namespace/name@interface, …", and an interface without a name is the next netN.
// https://github.com/k8snetworkplumbingwg/multi-net-spec, Network Selection Annotation, and
// https://github.com/k8snetworkplumbingwg/multus-cni/blob/master/docs/how-to-use.md
func promised(annotation string) (podsync.Promise, error) {
	annotation = strings.TrimSpace(annotation)
	if annotation == "" {
		return nil, nil
	}
	var networks []network
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
	var names podsync.Promise
	for i, n := range networks {
		if n.Name == "" {
			return nil, fmt.Errorf("networks annotation %q: network %d has no name", annotation, i)
		}
		if n.Interface == "" {
			n.Interface = fmt.Sprintf("net%d", i+1)
		}
		names = append(names, n.Interface)
	}
	return names, nil
}

// network is what we need of a NetworkSelectionElement.
type network struct {
	Name      string `json:"name"`
	Interface string `json:"interface"`
}

var shortForm = regexp.MustCompile(`^(?:[a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?([a-z0-9]([-.a-z0-9]*[a-z0-9])?)(?:@([^\s/:@]{1,15}))?$`)

func short(item string) (network, error) {
	m := shortForm.FindStringSubmatch(item)
	if m == nil {
		return network{}, fmt.Errorf("%q is not of the form namespace/name@interface", item)
	}
	return network{Name: m[2], Interface: m[4]}, nil
}
