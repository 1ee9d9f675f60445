// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package attachment holds the words of CNI's side: what a call is about (container, interface, network, pod, network
// namespace) and what it asks for. The plugins write them, the agent's flows read them. Values only.
package attachment

import "github.com/multus-vpc/multus-vpc/internal/eni"

// Key is what the CNI specification identifies an attachment by within a node: DEL frees by it, and a second ADD of it
// gets the same addresses.
type Key struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

func (k Key) String() string { return k.ContainerID + "/" + k.IfName }

// Attachment is a container's interface on a network, with what is needed to know that it lives.
type Attachment struct {
	Key
	Network string `json:"network"`
	Pod     Pod    `json:"pod,omitzero"`
	Netns   Netns  `json:"netns,omitzero"`
}

// Pod identifies the Kubernetes pod, from CNI_ARGS. All empty outside Kubernetes.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
}

// Netns identifies a network namespace beyond its path: paths and inode numbers are reused at once, cookies never.
type Netns struct {
	Path string `json:"path,omitempty"`
	// Cookie is SO_NETNS_COOKIE as a socket inside the namespace reports it (Linux 5.14); 0 where the kernel has none.
	Cookie uint64 `json:"cookie,omitempty"`
	// Device and Inode are stat's of the path, for kernels without the cookie.
	Device uint64 `json:"device,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
}

// Same reports whether both name one namespace, whatever path leads there.
func (n Netns) Same(o Netns) bool {
	if n.Cookie != 0 || o.Cookie != 0 {
		return n.Cookie == o.Cookie
	}
	return n.Inode != 0 && n.Inode == o.Inode && n.Device == o.Device
}

// Address families of [Query.Families].
const (
	IPv4 = "ipv4"
	IPv6 = "ipv6"
)

// Sources of [Query.Source].
const (
	SourceReservation = "reservation" // named addresses out of explicit reservations
	SourcePrefix      = "prefix"      // out of delegated /28 and /80 prefixes
	SourceSubnet      = "subnet"      // EC2 chooses
)

// Query says on which ENI and what kind of addresses an attachment wants.
type Query struct {
	Selector eni.Selector `json:"selector,omitzero"`
	// Families wanted; empty means IPv4.
	Families []string `json:"families,omitempty"`
	// Source of the addresses; empty means [SourceReservation].
	Source string `json:"source,omitempty"`
	// NeedLink refuses an ENI whose link is absent from the host.
	NeedLink bool `json:"needLink,omitempty"`
}

// Link is a netdev in the host's network namespace.
type Link struct {
	Name  string  `json:"name"`
	Index int     `json:"index"`
	MTU   int     `json:"mtu"`
	MAC   eni.MAC `json:"mac,omitempty"`
	Up    bool    `json:"up,omitempty"` // administratively up (IFF_UP)
}
