// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"cmp"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Floating is an attachment whose interface is to be watched for addresses that are to follow it.
type Floating struct {
	attachment.Attachment
	Ranges []attachment.Range
}

// Floating lists the attachments that asked for it and live, as far as the node can tell. Whoever watches them claims what appears:
// the node itself does not look into pods.
func (n *Node) Floating() []Floating {
	var all []Floating
	for _, h := range n.snapshot(func(h *hold) bool {
		return len(h.floating) > 0 && h.state != ownership.Cooling && h.visible && h.Netns.Path != ""
	}) {
		all = append(all, Floating{h.Attachment, h.floating})
	}
	slices.SortFunc(all, func(a, b Floating) int {
		return cmp.Or(cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.IfName, b.IfName))
	})
	return all
}

// FloatingChanged has a value whenever [Node.Floating] may have changed. It is for one reader.
func (n *Node) FloatingChanged() <-chan struct{} { return n.watch }
