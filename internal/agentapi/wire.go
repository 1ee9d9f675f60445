// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package agentapi is the protocol of the node agent: one JSON request and one JSON response on a unix socket, one exchange per
// connection. The CNI plugins and the programs in pods use [Client], the agent [Server] for the former and [PodServer] for the
// latter. It knows how to talk, and who is calling, not what to answer; rules about addresses do not belong here. The plugins link it, so it imports the standard library
// and x/sys alone.
package agentapi

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Version is the protocol version of this build. An agent serves Version and Version − 1, and a plugin speaks to an
// agent of Version − 1 as well, so that either side may be upgraded first.
const Version = 1

// DefaultSocket is where the agent listens and the plugins look.
const DefaultSocket = "/run/multus-vpc/agent/agent.sock"

// DefaultSyncSocket is where the agent listens for pods, whose directory they mount.
const DefaultSyncSocket = "/run/multus-vpc/sync/sync.sock"

// Method says what is asked for.
type Method string

// The methods of version 1.
const (
	MethodAdd    Method = "add"    // allocate addresses for an attachment; idempotent per attachment
	MethodDel    Method = "del"    // release what an attachment holds; succeeds when it holds nothing
	MethodCheck  Method = "check"  // compare what an attachment holds with Addresses
	MethodENI    Method = "eni"    // resolve a Query to an ENI with a link, allocating nothing
	MethodStatus Method = "status" // the node's ENIs, addresses and attachments

	// The next ones are answered with code 100 by an agent that does not know them.
	MethodRegister Method = "register" // register Addresses, which another IPAM gave the attachment; del gives them back
	MethodReady    Method = "ready"    // CNI STATUS: can an ADD for Query be served? Error code 50 or 51 if not
	MethodGC       Method = "gc"       // release what Network's attachments hold that are not among Valid and dead
)

// The methods of the sync socket, about Interface of the network namespace that the connection comes from. The agent's own
// socket does not know them, and the sync socket no other: see [PodServer].
const (
	MethodClaim    Method = "claim"    // have EC2 know Addresses, which the interface carries, as its ENI's; idempotent
	MethodYield    Method = "yield"    // give back what the namespace claimed of Addresses; succeeds for all others
	MethodStanding Method = "standing" // who has each of Addresses, as EC2 says now
)

// Request is the one message that a client sends.
type Request struct {
	// Version of the sender.
	Version int    `json:"version"`
	Method  Method `json:"method"`
	// TimeoutMillis is how long the client will wait for the answer, from when the agent reads the request.
	TimeoutMillis int64 `json:"timeoutMillis,omitempty"`
	// Attachment that the request is about; absent for status.
	Attachment *attachment.Attachment `json:"attachment,omitempty"`
	// Query says which ENI and what kind of addresses; add and eni only.
	Query *attachment.Query `json:"query,omitempty"`
	// Interface that carries Addresses, on the sync socket.
	Interface string `json:"interface,omitempty"`
	// Addresses that the caller expects the attachment to hold (check), that it has from another IPAM (register), or that the
	// request is about on the sync socket, where their prefix length says nothing.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// OnConflict is for register, and for claim, where it only counts when it is never: else the agent's configuration decides.
	OnConflict attachment.OnConflict `json:"onConflict,omitempty"`
	// Network and Valid are for gc: the attachments of the network that the runtime knows to be alive.
	Network string           `json:"network,omitempty"`
	Valid   []attachment.Key `json:"valid,omitempty"`
}

// wellFormed refuses addresses that encoding/json lets pass though they are none: null, and the empty string.
func (r *Request) wellFormed() error {
	for i, p := range r.Addresses {
		if !p.IsValid() {
			return fmt.Errorf("addresses[%d] is no address with its prefix length", i)
		}
	}
	if r.Query == nil {
		return nil
	}
	for i, a := range r.Query.Requested {
		if !a.IsValid() {
			return fmt.Errorf("query.requested[%d] is no address", i)
		}
	}
	for key, list := range map[string][]attachment.Range{"ranges": r.Query.Ranges, "exclude": r.Query.Exclude, "floating": r.Query.Floating} {
		for i, one := range list {
			if !one.From.IsValid() || !one.To.IsValid() {
				return fmt.Errorf("query.%s[%d] is no range", key, i)
			}
		}
	}
	return nil
}

// Response is the one message that the agent sends back. Exactly one of Error and the answer to the method is set;
// del and yield answer by an empty response, check by an empty one or by Add.
type Response struct {
	// Version of the agent.
	Version int       `json:"version"`
	Error   *Error    `json:"error,omitempty"`
	Add     *AddReply `json:"add,omitempty"` // add and eni; check, so that the client can compare the ENI
	Status  *Status   `json:"status,omitempty"`
	// Results are for claim and standing, one for each address.
	Results []Result `json:"results,omitempty"`
	// Receipt is for [Handler.Undelivered]: what the handler has to know of the answer, never sent.
	Receipt any `json:"-"`
}

// failed reports whether something that was asked for was not done.
func (r Response) failed() bool {
	return r.Error != nil || slices.ContainsFunc(r.Results, func(one Result) bool { return one.Error != nil })
}

// Result is what became of one address on the sync socket.
type Result struct {
	Addr netip.Addr `json:"addr"`
	// New is whether the claim changed EC2.
	New bool `json:"new,omitempty"`
	// Standing is who has the address: "nobody", "here" or "elsewhere".
	Standing string `json:"standing,omitempty"`
	// Error of a claim: 7 when to try again is of no use, 103 when another ENI has the address and it may not be taken from there.
	Error *Error `json:"error,omitempty"`
}

// The values of [Result.Standing].
const (
	StandingNobody    = "nobody"
	StandingHere      = "here"
	StandingElsewhere = "elsewhere"
)

// Error is a CNI error: the code decides what the runtime does, the message is what the user sees.
type Error struct {
	Code    uint   `json:"code"`
	Message string `json:"msg"`
	Details string `json:"details,omitempty"`
}

func (e *Error) Error() string {
	if e.Details != "" {
		return e.Message + ": " + e.Details
	}
	return e.Message
}

// Error codes of the CNI specification and our own from 100.
// https://github.com/containernetworking/cni/blob/main/SPEC.md#error
const (
	CodeUnsupportedField = 2
	CodeUnknownContainer = 3
	CodeIO               = 5
	CodeDecode           = 6
	CodeInvalidConfig    = 7
	CodeTryAgainLater    = 11
	CodeNotAvailable     = 50  // STATUS: ADD cannot be served
	CodeLimited          = 51  // STATUS: the same, and existing pods may have lost connectivity
	CodeVersion          = 100 // protocol versions of plugin and agent are too far apart
	CodeCheckFailed      = 101 // CHECK found a difference; the message names it
	CodeMasterMode       = 102 // the ENI's link carries ipvlan children in another mode than l2
	CodeContested        = 103 // another ENI has the address, and it may not be taken from there
	CodeInternal         = 999
)

// AddReply is where the attachment's addresses are. Addresses is empty for [MethodENI].
type AddReply struct {
	ENI ENI `json:"eni"`
	// Addresses carry the prefix length of their subnet.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// ENI is what a plugin needs to know of the chosen ENI.
type ENI struct {
	ID          eni.ID         `json:"id"`
	MAC         eni.MAC        `json:"mac"`
	NetworkCard int            `json:"networkCard"`
	DeviceIndex int            `json:"deviceIndex"`
	SubnetID    eni.SubnetID   `json:"subnetID"`
	SubnetIPv4  netip.Prefix   `json:"subnetIPv4,omitzero"`
	SubnetIPv6  []netip.Prefix `json:"subnetIPv6,omitempty"`
	// Link is the zero value when the ENI has none in the host's namespace.
	Link attachment.Link `json:"link,omitzero"`
}

// Status is a snapshot of the node.
type Status struct {
	InstanceID   eni.InstanceID `json:"instanceID"`
	InstanceType string         `json:"instanceType"`
	AZ           string         `json:"az"`
	AgentVersion string         `json:"agentVersion"`
	ENIs         []ENIStatus    `json:"enis"`
	Attachments  []HoldStatus   `json:"attachments"`
	// Problems are what an operator should look at, in words: those of the node, of its ENIs by card and device index, of
	// attachments.
	Problems []string `json:"problems,omitempty"`
}

// ENIStatus is one ENI with its pool.
type ENIStatus struct {
	ENI
	Managed   bool            `json:"managed"` // pool-managed: secondary, tagged, with an explicit reservation
	Active    bool            `json:"active"`  // takes stock: a pod was here, or configuration or a role tag says so
	Slots     int             `json:"slots"`   // secondary addresses that the instance type allows
	Addresses []AddressStatus `json:"addresses,omitempty"`
	Prefixes  []PrefixStatus  `json:"prefixes,omitempty"`
}

// PrefixStatus is one delegated prefix on an ENI and how many of its addresses somebody has.
type PrefixStatus struct {
	Prefix netip.Prefix `json:"prefix"`
	State  string       `json:"state"`
	Used   int          `json:"used"`
}

// AddressStatus is one address on an ENI and its state of the ownership table.
type AddressStatus struct {
	Addr  netip.Addr `json:"addr"`
	State string     `json:"state"`
	// Holder is "containerID/ifName" for held and cooling addresses.
	Holder string `json:"holder,omitempty"`
}

// HoldStatus is one attachment and what it holds.
type HoldStatus struct {
	attachment.Attachment
	ENI       eni.ID       `json:"eni"`
	Addresses []netip.Addr `json:"addresses"`
	State     string       `json:"state"` // held, cooling or lost
	// NetnsVisible is whether the agent can see the namespace, and so reap the attachment when it goes.
	NetnsVisible bool `json:"netnsVisible"`
}
