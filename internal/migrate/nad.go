// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package migrate

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
)

// Outcome is what came of one object of a file.
type Outcome struct {
	Name   string          // "namespace/name", or what else there is to call it
	Object json.RawMessage // the NetworkAttachmentDefinition to use instead; nil when there is none
	Notes  []string
	Err    error // why it cannot be replaced
}

const (
	kindNAD = "NetworkAttachmentDefinition"
	// annotationSync and annotationSamples ask the injector for a container in the network's pods, annotationVia says more about it.
	annotationSync    = "multus-vpc.io/sync"
	annotationSamples = "aws-multus-eni-mgmt-sidecar/inject"
	annotationVia     = "multus-vpc.io/via"
)

// Document replaces a NetworkAttachmentDefinition, or each in a list of kubectl's. Of other kinds it says that they are left out.
func Document(doc json.RawMessage, o Options) []Outcome {
	top, err := open(doc, "the document")
	if err != nil {
		return []Outcome{{Name: "a document", Err: err}}
	}
	if len(top) == 0 {
		return nil
	}
	kind, err := text(top, "", "kind")
	if err == nil && (kind == "List" || kind == kindNAD+"List") {
		return items(top["items"], o)
	}
	one := Outcome{Name: "a document"}
	metadata, metadataErr := inner(top, "", "metadata")
	name, nameErr := text(metadata, "metadata.", "name")
	namespace, namespaceErr := text(metadata, "metadata.", "namespace")
	if one.Err = errors.Join(err, metadataErr, nameErr, namespaceErr); one.Err != nil {
		return []Outcome{one}
	}
	if one.Name = name; namespace != "" {
		one.Name = namespace + "/" + name
	}
	if kind != kindNAD {
		one.Name = fmt.Sprintf("%s %s", kind, one.Name)
		one.Notes = []string{"is no " + kindNAD + ", and left out"}
		return []Outcome{one}
	}
	one.Object, one.Notes, one.Err = replace(top, metadata, name, o)
	return []Outcome{one}
}

// items replaces each object of a list.
func items(list json.RawMessage, o Options) (all []Outcome) {
	found, err := array(list, "items")
	if err != nil {
		return []Outcome{{Name: "a list", Err: err}}
	}
	for _, item := range found {
		all = append(all, Document(item, o)...)
	}
	return all
}

// replace makes the object with the other configuration, as it would be applied to a cluster.
func replace(top, metadata object, name string, o Options) (json.RawMessage, []string, error) {
	spec, err := inner(top, "", "spec")
	if err != nil {
		return nil, nil, err
	}
	config, err := text(spec, "spec.", "config")
	if err != nil {
		return nil, nil, err
	}
	if config == "" {
		return nil, nil, errors.New("spec.config: missing; the configuration is a file on the workers, which is not seen here")
	}
	annotations, err := inner(metadata, "metadata.", "annotations")
	if err != nil {
		return nil, nil, err
	}
	floating, err := text(annotations, "metadata.annotations.", cluster.AnnotationFloating)
	if err != nil {
		return nil, nil, err
	}
	if o.Floating, err = cluster.ParseRanges(floating); err != nil {
		return nil, nil, fmt.Errorf("metadata.annotations.%s: %w", cluster.AnnotationFloating, err)
	}
	r, err := Config([]byte(config), name, o)
	if err != nil {
		return nil, nil, err
	}
	if !r.Same {
		if spec["config"], err = encode(string(r.Config) + "\n"); err != nil {
			return nil, nil, err
		}
		for _, gone := range []struct{ key, reason string }{
			{annotationSync, "is not carried over: pods need no container of ours any more"},
			{annotationVia, "is not carried over: it says how that container reaches EC2"},
			{annotationSamples, "is not carried over: the injector would give pods a sidecar"},
			{cluster.AnnotationFloating, `becomes the key "floating": the agent moves these addresses`},
		} {
			if annotations[gone.key] != nil {
				r.Notes = append(r.Notes, fmt.Sprintf("metadata.annotations.%s: %s", gone.key, gone.reason))
				delete(annotations, gone.key)
			}
		}
	}
	// What the API server wrote, and refuses or ignores in what is applied.
	for _, key := range []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"} {
		delete(metadata, key)
	}
	delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
	if delete(metadata, "annotations"); len(annotations) > 0 {
		if metadata["annotations"], err = encode(annotations); err != nil {
			return nil, nil, err
		}
	}
	delete(top, "status")
	for key, value := range map[string]object{"metadata": metadata, "spec": spec} {
		if top[key], err = encode(value); err != nil {
			return nil, nil, err
		}
	}
	out, err := encode(top)
	return out, r.Notes, err
}
