// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package ownership is the life of one address on one ENI as a table: state × event → state and effect. The pool
// follows it, its tests walk it, and docs/ownership.md prints it; none of them has a second opinion. It is pure: when
// an event happens is the pool's business, what it means is decided here.
package ownership

import (
	"fmt"
	"slices"
)

// State is what the agent believes of one address on one of its ENIs. The zero State is [None].
type State uint8

// The states. Only Free is stock: every other state is either somebody's or not known well enough to be given out.
const (
	None        State = iota // not on the ENI as far as we know
	Assigning                // asked of EC2, or answered but not yet seen on the ENI
	Free                     // ours, seen on the ENI, nobody has it
	Held                     // an attachment has it
	Cooling                  // given back; for the cooldown only the same pod may have it again
	Unassigning              // being given back to EC2
	Unknown                  // an assign whose outcome is unknown: read back before acting
	Guest                    // registered for a pod whose address another IPAM gave out
	Foreign                  // on the ENI, not ours
	Lost                     // held, but EC2 says that the ENI no longer has it
	numStates
)

var stateNames = [numStates]string{
	"none", "assigning", "free", "held", "cooling", "unassigning", "unknown", "guest", "foreign", "lost",
}

func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// ParseState is the inverse of [State.String]; ok is false for a word of a newer version.
func ParseState(s string) (State, bool) {
	i := slices.Index(stateNames[:], s)
	return State(max(i, 0)), i >= 0
}

// States lists all states in the order of their declaration.
func States() []State {
	all := make([]State, numStates)
	for i := range all {
		all[i] = State(i)
	}
	return all
}

// OnENI reports whether an address in this state takes one of the ENI's slots, or may.
func (s State) OnENI() bool { return s != None && s != Lost }

// Event is something that happened to an address.
type Event uint8

// The events. Seen and Unseen are reads that may decide: the pool raises Unseen only for a read from EC2 that began
// late enough after our last write for eventual consistency to have settled, never for one from the instance metadata.
const (
	Assign      Event = iota // about to ask EC2 for it
	Refused                  // EC2 refused a batch that contained it, for whatever address of the batch
	NotDone                  // EC2 did nothing for sure (throttled)
	ReplyLost                // no definite answer
	Seen                     // a read shows it on the ENI
	Unseen                   // a settled read from EC2 does not show it on the ENI
	Hold                     // given to an attachment
	Rehold                   // the same pod, interface and network asks again
	Release                  // its attachment is gone: DEL, or the namespace is no more
	Undelivered              // the answer that gave it out could not be delivered
	Cooled                   // the cooldown is over and no namespace carries it
	Unassign                 // about to give it back to EC2
	Unassigned               // EC2 took it back, or says that the ENI does not have it
	Carried                  // a namespace was found to carry it though nobody holds it
	Adopt                    // in a pool range, on a pool ENI, of nobody for twice the cooldown
	Register                 // another IPAM's address is registered for a pod
	Yield                    // a pod that claimed it for itself gave it up: it, or a neighbour, may claim it in a moment
	Restarted                // the agent read it from its ledger
	Rebooted                 // the same, after the worker rebooted: no namespace outlived that
	numEvents
)

var eventNames = [numEvents]string{
	"assign", "refused", "not-done", "reply-lost", "seen", "unseen", "hold", "rehold", "release", "undelivered",
	"cooled", "unassign", "unassigned", "carried", "adopt", "register", "yield", "restarted", "rebooted",
}

func (e Event) String() string {
	if e < numEvents {
		return eventNames[e]
	}
	return fmt.Sprintf("Event(%d)", uint8(e))
}

// Events lists all events in the order of their declaration.
func Events() []Event {
	all := make([]Event, numEvents)
	for i := range all {
		all[i] = Event(i)
	}
	return all
}

// Effect is what the pool has to do because of a transition.
type Effect uint8

// The effects.
const (
	Nothing       Effect = iota
	ReadBack             // read the ENI until the address is seen or settled as unseen
	Stock                // it may be handed out now: serve a waiter
	StartCooldown        // (re)start the cooldown
	SendUnassign         // send the unassign (again)
	ReportLost           // tell the operator, and re-assign only if nobody owns it
)

var effectNames = [...]string{"", "read back", "stock", "start cooldown", "send unassign", "report lost"}

func (e Effect) String() string { return effectNames[e] }

// Next is the state and effect after event e in state s. ok is false where the event makes no sense in the state: the
// caller has a bug, and must change nothing.
func Next(s State, e Event) (next State, effect Effect, ok bool) {
	t, ok := table[at{s, e}]
	if !ok {
		return s, Nothing, false
	}
	return t.next, t.effect, true
}

type at struct {
	state State
	event Event
}

type to struct {
	next   State
	effect Effect
}

// table is the whole of the rules. A pair that is absent is a bug of the caller.
var table = map[at]to{
	{None, Assign}:     {Assigning, Nothing},
	{None, Seen}:       {Foreign, Nothing},
	{None, Unseen}:     {None, Nothing},
	{None, Register}:   {Guest, Nothing},
	{None, Release}:    {None, Nothing},
	{None, Unassigned}: {None, Nothing},

	// A refusal does not say which addresses of the batch were taken, and whether EC2 applied the others is not
	// documented: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssignPrivateIpAddresses.html
	{Assigning, Refused}:   {Unknown, ReadBack},
	{Assigning, NotDone}:   {None, Nothing},
	{Assigning, ReplyLost}: {Unknown, ReadBack},
	{Assigning, Seen}:      {Free, Stock},
	{Assigning, Unseen}:    {None, Nothing},
	{Assigning, Restarted}: {Unknown, ReadBack},
	{Assigning, Rebooted}:  {Unknown, ReadBack},

	{Unknown, Assign}:    {Assigning, Nothing}, // the survivors of a refused batch are sent again
	{Unknown, Seen}:      {Free, Stock},
	{Unknown, Unseen}:    {None, Nothing},
	{Unknown, Carried}:   {Held, Nothing},
	{Unknown, Restarted}: {Unknown, ReadBack},
	{Unknown, Rebooted}:  {Unknown, ReadBack},

	{Free, Seen}:      {Free, Nothing},
	{Free, Unseen}:    {None, Nothing},
	{Free, Hold}:      {Held, Nothing},
	{Free, Release}:   {Free, Nothing},
	{Free, Unassign}:  {Unassigning, SendUnassign},
	{Free, Carried}:   {Held, Nothing},
	{Free, Register}:  {Guest, Nothing},
	{Free, Restarted}: {Unknown, ReadBack}, // stock is what was seen by this agent
	{Free, Rebooted}:  {Unknown, ReadBack},

	{Held, Seen}:        {Held, Nothing},
	{Held, Unseen}:      {Lost, ReportLost},
	{Held, Release}:     {Cooling, StartCooldown},
	{Held, Undelivered}: {Free, Stock},
	{Held, Carried}:     {Held, Nothing},
	{Held, Restarted}:   {Held, Nothing},
	{Held, Rebooted}:    {Cooling, StartCooldown},

	{Cooling, Seen}:       {Cooling, Nothing},
	{Cooling, Unseen}:     {None, Nothing},
	{Cooling, Rehold}:     {Held, Nothing},
	{Cooling, Release}:    {Cooling, Nothing},
	{Cooling, Cooled}:     {Free, Stock},
	{Cooling, Carried}:    {Cooling, StartCooldown}, // a namespace that still carries it always wins
	{Cooling, Register}:   {Guest, Nothing},         // handed over: it never leaves the ENI in between
	{Cooling, Unassigned}: {None, Nothing},          // moved to another ENI
	{Cooling, Restarted}:  {Cooling, StartCooldown},
	{Cooling, Rebooted}:   {Cooling, StartCooldown},

	// A lost reply leaves it here: unassigning is as unknown as unknown, and asking again is harmless.
	{Unassigning, NotDone}:    {Free, Stock},
	{Unassigning, ReplyLost}:  {Unassigning, ReadBack},
	{Unassigning, Seen}:       {Unassigning, SendUnassign},
	{Unassigning, Unseen}:     {None, Nothing},
	{Unassigning, Unassigned}: {None, Nothing},
	{Unassigning, Register}:   {Guest, Nothing}, // a new registration cancels a pending unassign
	{Unassigning, Restarted}:  {Unassigning, ReadBack},
	{Unassigning, Rebooted}:   {Unassigning, ReadBack},

	{Guest, Seen}:      {Guest, Nothing},
	{Guest, Unseen}:    {Lost, ReportLost},
	{Guest, Register}:  {Guest, Nothing},
	{Guest, Release}:   {Unassigning, SendUnassign},
	{Guest, Yield}:     {Cooling, StartCooldown},
	{Guest, Restarted}: {Guest, Nothing},
	{Guest, Rebooted}:  {Unassigning, SendUnassign},

	{Foreign, Seen}:      {Foreign, Nothing},
	{Foreign, Unseen}:    {None, Nothing},
	{Foreign, Carried}:   {Held, Nothing},
	{Foreign, Adopt}:     {Free, Stock},
	{Foreign, Register}:  {Guest, Nothing},
	{Foreign, Restarted}: {Foreign, Nothing},
	{Foreign, Rebooted}:  {Foreign, Nothing},

	{Lost, Seen}:      {Held, Nothing},
	{Lost, Unseen}:    {Lost, Nothing},
	{Lost, Release}:   {None, Nothing},
	{Lost, Unassign}:  {Unassigning, ReadBack}, // released while it is being asked for again
	{Lost, Restarted}: {Lost, Nothing},
	{Lost, Rebooted}:  {None, Nothing},
}
