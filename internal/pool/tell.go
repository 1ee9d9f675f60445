// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"fmt"
	"net/netip"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Notice is what whoever runs a pod should know about one of its addresses.
type Notice struct {
	Pod   attachment.Pod
	About Subject
	Text  string // a sentence with the address and the ENI, and what happens now
}

// Subject is what a [Notice] is about, in the form of a reason of a Kubernetes Event.
type Subject string

// What [Config.Tell] is told of.
const (
	AddressLost      Subject = "AddressLost"      // EC2 no longer has it on the worker's ENI: nothing reaches the pod by it
	AddressContested Subject = "AddressContested" // another ENI has it
	AddressMoved     Subject = "AddressMoved"     // it was taken from another ENI for this pod
	AddressRegained  Subject = "AddressRegained"  // it was lost, and is on the ENI again
)

// Warns reports whether somebody should look at it.
func (s Subject) Warns() bool { return s == AddressLost || s == AddressContested }

// tell passes a notice on, if it is known whose it is: outside Kubernetes nobody says.
func (n *Node) tell(pod attachment.Pod, about Subject, format string, args ...any) {
	if pod.Name != "" {
		n.cfg.Tell(Notice{Pod: pod, About: about, Text: fmt.Sprintf(format, args...)})
	}
}

// tellHolder tells of an address to whose attachment it belongs. The caller holds n.mu.
func (n *Node) tellHolder(key attachment.Key, about Subject, format string, args ...any) {
	if h := n.holds[key]; h != nil {
		n.tell(h.Pod, about, format, args...)
	}
}

// tellLost tells of a unit that EC2 does not show any more. The caller holds n.mu.
func (p *iface) tellLost(u unit, key attachment.Key) {
	p.n.tellHolder(key, AddressLost, "EC2 no longer has %s on %s, so nothing reaches the pod by it; it is assigned again when no other ENI has it", name(u), p.id)
}

// tellContested tells that another ENI has an address of ours. The caller holds n.mu.
func (p *iface) tellContested(a netip.Addr, key attachment.Key, owner eni.ID) {
	p.n.tellHolder(key, AddressContested, "%s is on %s and not on %s any more; it is not taken back, and comes back when nobody has it", a, owner, p.id)
}
