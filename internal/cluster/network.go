// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cluster

import (
	"encoding/json"
	"fmt"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Network is a NetworkAttachmentDefinition.
type Network struct {
	Namespace, Name string
	Config          string // spec.config; empty when the configuration is a file on the nodes
	Annotations     map[string]string
}

func (n Network) String() string { return n.Namespace + "/" + n.Name }

// Use is what a network makes of addresses on the workers' ENIs.
type Use struct {
	// Reserved says that agents keep stock for it out of explicit reservations, Chosen that they keep addresses which EC2
	// chooses.
	Reserved, Chosen bool
	// Floating are the ranges of addresses that move with whichever pod carries them.
	Floating []attachment.Range
}

// Use reads the configuration for what it makes of addresses. One that cannot be seen, because it is a file on the nodes, may
// make anything of reserved ones. The error says that it cannot be read.
func (n Network) Use() (Use, error) {
	var u Use
	var err error
	if u.Floating, err = ParseRanges(n.Annotations[AnnotationFloating]); err != nil {
		return u, fmt.Errorf("network %s: annotation %s: %w", n, AnnotationFloating, err)
	}
	if n.Config == "" {
		u.Reserved = true
		return u, nil
	}
	type plugin struct {
		Type     string             `json:"type"`
		Floating []attachment.Range `json:"floating"`
		IPAM     struct {
			Type   string `json:"type"`
			Source string `json:"source"`
		} `json:"ipam"`
	}
	var c struct {
		plugin
		Plugins []plugin `json:"plugins"`
	}
	if err = json.Unmarshal([]byte(n.Config), &c); err != nil {
		return u, fmt.Errorf("network %s: %w", n, err)
	}
	for _, p := range append(c.Plugins, c.plugin) {
		u.Floating = append(u.Floating, p.Floating...)
		if p.IPAM.Type != "vpcipam" {
			continue
		}
		switch p.IPAM.Source {
		case attachment.SourceSubnet:
			u.Chosen = true
		case attachment.SourcePrefix: // its addresses are the prefixes', no addresses of the ENI's own
		default:
			u.Reserved = true
		}
	}
	return u, nil
}
