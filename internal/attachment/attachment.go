// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package attachment holds the words of CNI's side: what a call is about (container, interface, network, pod, network
// namespace) and what it asks for. The plugins write them, the agent's flows read them. Values only.
package attachment

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

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

	// ReservationTags narrow [SourceReservation] to reservations that carry them all.
	ReservationTags map[string]string `json:"reservationTags,omitempty"`
	// Ranges narrow it to addresses in one of them, Exclude keeps addresses out.
	Ranges  []Range `json:"ranges,omitempty"`
	Exclude []Range `json:"exclude,omitempty"`
	// Requested are the addresses that the pod is to have, at most one per family; they come before Source.
	Requested []netip.Addr `json:"requested,omitempty"`
	// Sticky, when set, gives a StatefulSet's pod the address at its ordinal in Ranges, wherever it runs.
	Sticky *Sticky `json:"sticky,omitempty"`
	// Floating are ranges whose addresses belong to the pod on whose interface they appeared last: the agent watches the interface
	// for them. They are none of those that the attachment is given.
	Floating []Range `json:"floating,omitempty"`
}

// Range is a run of addresses of one family, both ends included. Its text form is "10.10.1.64-10.10.1.79", or a CIDR.
type Range struct {
	From, To netip.Addr
}

// ParseRange reads "10.10.1.64/28", "10.10.1.64-10.10.1.79" or a single address. It refuses forms that no address of a pod would lie
// in: an exclusion would exclude nothing.
func ParseRange(s string) (Range, error) {
	r, err := parseRange(s)
	switch {
	case err != nil:
		return Range{}, err
	case r.From.Is4In6() || r.To.Is4In6():
		return Range{}, fmt.Errorf("%q is an IPv4 network in IPv6 form; write it as IPv4", s)
	case r.From.Zone() != "" || r.To.Zone() != "":
		return Range{}, fmt.Errorf("%q has a zone; write it without", s)
	}
	return r, nil
}

func parseRange(s string) (Range, error) {
	if from, to, ok := strings.Cut(s, "-"); ok {
		a, errA := netip.ParseAddr(strings.TrimSpace(from))
		b, errB := netip.ParseAddr(strings.TrimSpace(to))
		if errA != nil || errB != nil || a.BitLen() != b.BitLen() || b.Less(a) {
			return Range{}, fmt.Errorf("%q: want two addresses of one family in ascending order, as in 10.10.1.64-10.10.1.79", s)
		}
		return Range{a, b}, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		if p != p.Masked() {
			return Range{}, fmt.Errorf("%q has host bits set: want %s", s, p.Masked())
		}
		return Range{p.Addr(), eni.LastAddr(p)}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return Range{}, fmt.Errorf("%q is neither a CIDR, nor a range, nor an address", s)
	}
	return Range{a, a}, nil
}

// Contains reports whether a lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return a.BitLen() == r.From.BitLen() && !a.Less(r.From) && !r.To.Less(a)
}

// Nth is the n-th address of the ranges one after the other, the first being number 0. ok is false when they have fewer.
func Nth(ranges []Range, n uint64) (a netip.Addr, ok bool) {
	for _, r := range ranges {
		last := r.last()
		if n <= last {
			return r.from(n), true
		}
		n -= last + 1
	}
	return netip.Addr{}, false
}

// last is the number of the last address, or the greatest number when that is beyond it.
func (r Range) last() uint64 {
	from, to := r.From.As16(), r.To.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(to[8:]), binary.BigEndian.Uint64(from[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(to[:8]), binary.BigEndian.Uint64(from[:8]), borrow)
	if high > 0 {
		return math.MaxUint64
	}
	return low
}

// from is the n-th address.
func (r Range) from(n uint64) netip.Addr {
	b := r.From.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), n, 0)
	binary.BigEndian.PutUint64(b[8:], low)
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+carry)
	a := netip.AddrFrom16(b)
	if r.From.Is4() {
		return a.Unmap()
	}
	return a
}

func (r Range) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	return r.From.String() + "-" + r.To.String()
}

// MarshalText writes [Range.String].
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what [ParseRange] does.
func (r *Range) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRange(string(text))
	return err
}

// Sticky names the StatefulSet whose pods keep their addresses.
type Sticky struct {
	StatefulSet string `json:"statefulSet"`
}

// OnConflict says what to do when an address of another IPAM is held by another ENI.
type OnConflict string

// The values of [OnConflict].
const (
	// WaitThenReassign waits up to 5 s for the owner to give it back, then moves it, if it is a secondary address of an
	// ENI tagged as a worker's of this cluster.
	WaitThenReassign OnConflict = "wait-then-reassign"
	Never            OnConflict = "never"
	Reassign         OnConflict = "reassign"
)

// Link is a netdev in the host's network namespace.
type Link struct {
	Name  string  `json:"name"`
	Index int     `json:"index"`
	MTU   int     `json:"mtu"`
	MAC   eni.MAC `json:"mac,omitempty"`
	Up    bool    `json:"up,omitempty"` // administratively up (IFF_UP)
}
