// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"fmt"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// bringUp brings the ENI's link up if it is down. A late ENI is, and nobody else will do it.
func (n *Node) bringUp(p *iface) error {
	n.mu.Lock()
	l := p.link
	n.mu.Unlock()
	if l.Index == 0 || l.Up {
		return nil
	}
	if err := n.ports.Host.Up(l.Index, n.cfg.MTU); err != nil {
		return &Refusal{NotReady, fmt.Sprintf("bring up link %s of %s: %v", l.Name, p.id, err)}
	}
	n.log.Info("link brought up", "link", l.Name, "eni", p.id, "mtu", n.cfg.MTU)
	n.readLinks()
	return nil
}

// RefreshLinks reads the host's links again, and brings up those of active ENIs. Call it when links change.
func (n *Node) RefreshLinks() {
	for _, p := range n.readLinks() {
		if err := n.bringUp(p); err != nil {
			n.log.Warn("link stays down", "eni", p.id, "error", err)
		}
	}
}

// readLinks finds each ENI's link by its MAC, and returns the active ENIs whose link is down. What hung on a link that is
// not there any more is told at once.
func (n *Node) readLinks() (down []*iface) {
	links, err := n.ports.Host.Links()
	if err != nil {
		n.log.Warn("list links", "error", err)
		return nil
	}
	byMAC := map[eni.MAC][]attachment.Link{}
	for _, l := range links {
		byMAC[l.MAC] = append(byMAC[l.MAC], l)
	}
	n.mu.Lock()
	for _, p := range n.ifaces {
		p.takeLink(byMAC[p.mac])
		if len(p.classes) > 0 && p.link.Index != 0 && !p.link.Up {
			down = append(down, p)
		}
	}
	n.mu.Unlock()
	n.judgeLinks()
	return down
}

// takeLink notes the host's links with the ENI's MAC, of which there should be one. The caller holds n.mu.
func (p *iface) takeLink(found []attachment.Link) {
	was := p.link
	p.link, p.linkProblem = attachment.Link{}, ""
	switch len(found) {
	case 0:
	case 1:
		p.link = found[0]
	default:
		p.linkProblem = fmt.Sprintf("links %s and %s both have its MAC %s", found[0].Name, found[1].Name, p.mac)
	}
	if was.Index != p.link.Index || was.Name != p.link.Name {
		p.n.log.Info("link of the ENI", "eni", p.id, "link", p.link.Name, "index", p.link.Index, "was", was.Name, "wasIndex", was.Index)
	}
}

// A child goes with its link: the kernel deletes the ipvlan children of a device that it unregisters, and a device that
// comes back is another one, with another index. So a hold remembers the index of the link that its pod's interface was
// made on, and what hangs on one that is no more is lost, though EC2 still has the address on the ENI.
// https://github.com/torvalds/linux/blob/v6.1/drivers/net/ipvlan/ipvlan_main.c (ipvlan_device_event, NETDEV_UNREGISTER)

// hangsOn is the index of the link that the pod's interface is made on, 0 when whoever asks makes none that we know of.
func (p *iface) hangsOn(q attachment.Query) int {
	if q.NeedLink || q.Selector.MAC != "" { // vpcipvlan; upstream's ipvlan, whose master was resolved to a MAC
		return p.link.Index
	}
	return 0
}

// severed reports whether the link that the pod's interface hung on is not the ENI's any more. The caller holds n.mu.
func (n *Node) severed(h *hold) bool {
	p := n.ifaces[h.eni]
	return p != nil && h.link != 0 && h.state != ownership.Cooling && p.link.Index != h.link && p.linkProblem == ""
}

// judgeLinks tells which holds lost their link, and which have one after all.
func (n *Node) judgeLinks() {
	n.mu.Lock()
	var doubtful []hold
	for _, h := range n.holds {
		switch cut := n.severed(h); {
		case cut && n.ifaces[h.eni].link.Index != 0:
			doubtful = append(doubtful, *h)
		case cut != h.cut:
			h.cut = cut
			n.tellLink(h)
		}
	}
	n.mu.Unlock()
	for _, h := range doubtful { // the plugin may have made the interface on the new link already
		carried := n.carries(h.Netns, h.addrs)
		n.mu.Lock()
		if now := n.holds[h.Key]; now != nil && now.Netns == h.Netns && n.severed(now) {
			n.rehang(now, carried)
		}
		n.mu.Unlock()
	}
}

// rehang notes that a hold is on the ENI's present link, if its namespace carries the address there. The caller holds
// n.mu.
func (n *Node) rehang(h *hold, carried bool) {
	index := n.ifaces[h.eni].link.Index
	if carried && index != 0 {
		h.link = index
		if err := n.ports.Ledger.Put(Record{Key: holdKey(h.Key), Value: h.record().Value}); err != nil {
			n.log.Error("cannot record the link of a hold", "error", err)
		}
	}
	if cut := n.severed(h); cut != h.cut {
		h.cut = cut
		n.tellLink(h)
	}
}

func (n *Node) tellLink(h *hold) {
	if h.cut {
		n.log.Error("held address is lost: the link that its pod's interface was made on is gone; delete the pod, so that it is made again",
			"ips", h.addrs, "eni", h.eni, "containerID", h.ContainerID, "pod", h.Pod.Namespace+"/"+h.Pod.Name)
		return
	}
	n.log.Info("lost address is back with its link", "ips", h.addrs, "eni", h.eni, "containerID", h.ContainerID)
}

// cutOff counts the attachments whose interface went with the ENI's link. The caller holds n.mu.
func (p *iface) cutOff() int {
	cut := 0
	for _, h := range p.n.holds {
		if h.eni == p.id && p.n.severed(h) {
			cut++
		}
	}
	return cut
}

// shown is the state of a hold for people. The caller holds n.mu.
func (n *Node) shown(h *hold) ownership.State {
	if n.severed(h) {
		return ownership.Lost
	}
	return h.state
}

// wordCut says what happened to attachments whose link is gone.
func (p *iface) wordCut(cut int) string {
	what := "the link of %s is gone from the host"
	if p.link.Index != 0 {
		what = "the link of %s was replaced"
	}
	return fmt.Sprintf(what+", and with it the interfaces of %d attachments; delete their pods, so that they are made again", p, cut)
}
