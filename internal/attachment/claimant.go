// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package attachment

// Claimant is an interface of a pod for whose addresses somebody asks in the pod's stead: its sidecar or init container, or the
// agent that watches its network namespace. Unlike an [Attachment] no CNI call is behind it, so nothing but the namespace tells
// when it ends.
type Claimant struct {
	// Netns is where the interface is. Its Path may be empty: whoever is asked finds one.
	Netns  Netns  `json:"netns"`
	IfName string `json:"ifName"`
	// Link is the index, in the host's network namespace, of the link that the interface is an ipvlan child of.
	Link int `json:"link"`
	// Pod is for people, and empty when nobody knows it.
	Pod Pod `json:"pod,omitzero"`
}

// Standing is who has an address, as EC2 says.
type Standing int

// The standings.
const (
	Nobody    Standing = iota
	Here               // the ENI of the interface that carries it
	Elsewhere          // another ENI
)
