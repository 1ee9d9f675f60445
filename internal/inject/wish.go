// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Mode is what a pod asks for.
type Mode string

// The modes, the weakest first.
const (
	None    Mode = "none"    // nothing, though a network asks
	Init    Mode = "init"    // registered once, before the pod's containers start
	Sidecar Mode = "sidecar" // kept registered beside them, floating addresses included
	Native  Mode = "native"  // both in one: an init container that stays, Kubernetes 1.29
)

func modes() []Mode { return []Mode{None, Init, Sidecar, Native} }

// Via is how the container reaches EC2.
type Via string

// The ways.
const (
	ViaAgent Via = "agent" // by the node agent's sync socket, a hostPath volume
	ViaEC2   Via = "ec2"   // by itself, with the pod's own credentials
)

func ways() []Via { return []Via{ViaAgent, ViaEC2} }

// Wish is what a pod is to have.
type Wish struct {
	Mode     Mode
	Floating string // ranges, separated by commas
	Via      Via    // empty: as the injector is configured

	explicit bool // the pod itself says which mode
}

// network is one that the pod selects.
type network struct {
	name        string // with its namespace
	annotations map[string]string
}

// wanted says what the pod and its networks ask for. The pod has the last word. Among networks the strongest mode counts, and
// the floating ranges add up. The error names every annotation that cannot be understood, and the valid values.
func wanted(pod map[string]string, networks []network) (Wish, error) {
	w := Wish{Mode: None}
	var errs []error
	for _, n := range networks {
		var wrong []error
		w, wrong = merge(w, n.annotations)
		for _, err := range wrong {
			errs = append(errs, fmt.Errorf("NetworkAttachmentDefinition %s: %w", n.name, err))
		}
	}
	own, wrong := merge(Wish{Mode: None}, pod)
	errs = append(errs, wrong...)
	_, says := pod[AnnotationSync]
	if own.explicit = says || own.Mode != None; own.explicit {
		w.Mode, w.explicit = own.Mode, true
	}
	if own.Floating != "" {
		w.Floating = own.Floating
	}
	if own.Via != "" {
		w.Via = own.Via
	}
	return w, errors.Join(errs...)
}

// merge adds what a set of annotations asks for.
func merge(w Wish, annotations map[string]string) (_ Wish, errs []error) {
	if v, ok := annotations[AnnotationSync]; ok {
		mode := Mode(v)
		if !slices.Contains(modes(), mode) {
			errs = append(errs, fmt.Errorf("annotation %s: %q is not one of %s", AnnotationSync, v, list(modes())))
		} else if slices.Index(modes(), mode) > slices.Index(modes(), w.Mode) {
			w.Mode = mode
		}
	} else if asks(annotations[AnnotationSamples]) && slices.Index(modes(), w.Mode) < slices.Index(modes(), Sidecar) {
		w.Mode = Sidecar
	}
	if v, ok := annotations[AnnotationVia]; ok {
		if w.Via = Via(v); !slices.Contains(ways(), w.Via) {
			errs = append(errs, fmt.Errorf("annotation %s: %q is not one of %s", AnnotationVia, v, list(ways())))
		}
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

// list is for people: a, b or c.
func list[T ~string](values []T) string {
	var words []string
	for _, v := range values {
		words = append(words, string(v))
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
