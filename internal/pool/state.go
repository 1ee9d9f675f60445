// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Ledger keys. A key of another prefix is a newer version's and is left alone.
const (
	holdPrefix    = "hold/"    // containerID/ifName → holdRecord
	addressPrefix = "address/" // eni/unit → unitRecord
	activePrefix  = "active/"  // eni or eni/kind → kind: a pod asked for this once
)

// activeKey is where it is kept that an ENI keeps a kind of stock.
func activeKey(id eni.ID, k kind) string {
	return fmt.Sprintf("%s%s/%x", activePrefix, id, sha256.Sum256([]byte(k.key())))
}

// holdRecord is what the ledger keeps of a hold. Times are of CLOCK_BOOTTIME, which no clock change moves.
type holdRecord struct {
	attachment.Attachment
	ENI       eni.ID             `json:"eni"`
	Addresses []netip.Addr       `json:"addresses"`
	State     string             `json:"state"`
	Uptime    time.Duration      `json:"uptime"`
	Visible   bool               `json:"visible"`
	Sticky    bool               `json:"sticky,omitempty"`
	Claimed   bool               `json:"claimed,omitempty"`
	Floats    bool               `json:"floats,omitempty"`
	Floating  []attachment.Range `json:"floating,omitempty"`
	Link      int                `json:"link,omitempty"`
	Until     time.Duration      `json:"until,omitempty"` // when the cooldown ends
}

func holdKey(k attachment.Key) string { return holdPrefix + k.ContainerID + "/" + k.IfName }

func (h *hold) record() Record {
	v, err := json.Marshal(holdRecord{h.Attachment, h.eni, h.addrs, h.state.String(), h.uptime, h.visible, h.sticky, h.claimed, h.floats, h.floating, h.link, h.until})
	if err != nil { // strings, numbers and addresses always marshal
		panic(err)
	}
	return Record{Key: holdKey(h.Key), Value: v}
}

// load fills the node from the ledger. Records that cannot be read are left alone: the reads at boot find the
// addresses again.
func (n *Node) load(records []Record, rebooted bool) {
	event := ownership.Restarted
	if rebooted {
		event = ownership.Rebooted
	}
	for _, r := range records {
		switch kind, rest, _ := strings.Cut(r.Key, "/"); kind + "/" {
		case activePrefix:
			n.loadKind(rest, r.Value)
		case addressPrefix:
			n.loadAddress(rest, r.Value, event)
		case holdPrefix:
			n.loadHold(r, event)
		}
	}
}

// settleReboot records what a reboot made of the holds, so that it is not concluded again at the next start.
func (n *Node) settleReboot() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.rebooted) == 0 {
		return
	}
	if err := n.ports.Ledger.Put(n.rebooted...); err != nil {
		n.log.Error("cannot record what the reboot ended; it is concluded again at the next start", "error", err)
		return
	}
	n.rebooted = nil
}

func (n *Node) loadAddress(key string, value json.RawMessage, event ownership.Event) {
	id, text, _ := strings.Cut(key, "/")
	u, err := parseUnit(text)
	var rec unitRecord
	if err != nil || json.Unmarshal(value, &rec) != nil {
		n.log.Warn("ledger record not understood", "key", addressPrefix+key)
		return
	}
	state, ok := ownership.ParseState(rec.State)
	if !ok {
		return
	}
	next, _, ok := ownership.Next(state, event)
	if !ok || next == ownership.None {
		return
	}
	if n.ours[eni.ID(id)] == nil {
		n.ours[eni.ID(id)] = map[unit]entry{}
	}
	n.ours[eni.ID(id)][u] = entry{
		state: next, source: cmp.Or(rec.Source, attachment.SourceReservation), doubted: state == ownership.Assigning,
	}
}

// loadKind reads a class that an ENI kept; the records of before there were kinds mean IPv4 out of reservations.
func (n *Node) loadKind(key string, value json.RawMessage) {
	id, _, _ := strings.Cut(key, "/")
	k := kind{Source: attachment.SourceReservation}
	if err := json.Unmarshal(value, &k); err != nil {
		n.log.Warn("ledger record not understood", "key", activePrefix+key, "error", err)
		return
	}
	n.wasActive[eni.ID(id)] = append(n.wasActive[eni.ID(id)], k.ofFamily())
}

func (n *Node) loadHold(r Record, event ownership.Event) {
	var rec holdRecord
	if err := json.Unmarshal(r.Value, &rec); err != nil || len(rec.Addresses) == 0 {
		n.log.Warn("ledger hold not understood", "error", err)
		return
	}
	state, ok := ownership.ParseState(rec.State)
	if !ok {
		return
	}
	next, _, ok := ownership.Next(state, event)
	if !ok {
		return
	}
	h := &hold{
		Attachment: rec.Attachment, eni: rec.ENI, addrs: rec.Addresses, state: next, uptime: rec.Uptime, visible: rec.Visible, sticky: rec.Sticky,
		claimed: rec.Claimed, floats: rec.Floats, floating: rec.Floating, link: rec.Link, told: 1,
	}
	if event == ownership.Restarted {
		h.until = rec.Until
	} else {
		changed := h.record()
		if next == ownership.None {
			changed.Value = nil
		}
		n.rebooted = append(n.rebooted, Record{Key: r.Key, Value: changed.Value})
	}
	if next == ownership.None {
		return
	}
	if next == ownership.Cooling {
		h.deadline = time.Now().Add(n.restOf(h.until))
	}
	n.holds[h.Key] = h
}

// restOf is what is left of a cooldown, all of it when the record does not say, or was made before a reboot.
func (n *Node) restOf(until time.Duration) time.Duration {
	if until == 0 {
		return n.cfg.Cooldown
	}
	return min(max(until-n.cfg.Uptime(), 0), n.cfg.Cooldown)
}
