// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package eni

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// What EC2 said, in the questions that callers ask. The EC2 hand wraps them, so test with [errors.Is].
var (
	// ErrAddressInUse: another ENI holds an address of the request and reassignment was not allowed. The error chain
	// has an [*InUseError] with the addresses that EC2 named, which need not be all that are taken.
	ErrAddressInUse = errors.New("address in use by another ENI")
	// ErrSlotsFull: the ENI holds as many addresses as its instance type allows (PrivateIpAddressLimitExceeded).
	ErrSlotsFull = errors.New("ENI address slots full")
	// ErrSubnetFull: the subnet has no free address (InsufficientFreeAddressesInSubnet).
	ErrSubnetFull = errors.New("subnet full")
	// ErrNoPrefix: the subnet has no free address block that is large enough and aligned for a delegated prefix, though
	// single addresses may be free (InsufficientCidrBlocks).
	ErrNoPrefix = errors.New("no contiguous prefix free in the subnet")
	// ErrThrottled: a request rate limit (RequestLimitExceeded, Throttling…). Nothing was changed.
	ErrThrottled = errors.New("throttled by EC2")
	// ErrNotFound: the ENI, instance or subnet does not exist, or not yet (EC2 is eventually consistent).
	ErrNotFound = errors.New("not found in EC2")
	// ErrNotAssigned: an address to unassign is not on the ENI.
	ErrNotAssigned = errors.New("address not assigned to the ENI")
	// ErrUnauthorized: the IAM role may not make the call.
	ErrUnauthorized = errors.New("not authorised by IAM")
	// ErrTokenUsed: the client token belongs to a request that was not the same, or to what was deleted since
	// (IdempotentParameterMismatch).
	ErrTokenUsed = errors.New("client token used before")
	// ErrIndexTaken: another ENI is attached at the device index.
	ErrIndexTaken = errors.New("device index taken")
	// ErrInstanceFull: the instance, or the network card, has as many ENIs as its type allows (AttachmentLimitExceeded).
	ErrInstanceFull = errors.New("ENI slots of the instance full")
	// ErrInUse: the ENI is attached, so it can be neither attached nor deleted.
	ErrInUse = errors.New("ENI is attached")
	// ErrNotReady: the instance or the ENI is not yet, or no longer, in a state that allows the call (IncorrectState).
	ErrNotReady = errors.New("not in a state for it")
	// ErrRefused: EC2 answered and said no, and none of the others is the reason.
	ErrRefused = errors.New("refused by EC2")
	// ErrOutcomeUnknown: the request may have taken effect (timeout, lost reply, 5xx). Read back before acting.
	ErrOutcomeUnknown = errors.New("outcome unknown")
)

// InUseError names the addresses that EC2 named when it refused to move them. It matches [ErrAddressInUse].
type InUseError struct {
	Addrs []netip.Addr // those that EC2 named; may be incomplete, or empty when the message could not be read
}

func (e *InUseError) Error() string {
	s := make([]string, len(e.Addrs))
	for i, a := range e.Addrs {
		s[i] = a.String()
	}
	return fmt.Sprintf("%s: [%s]", ErrAddressInUse, strings.Join(s, ", "))
}

// Is makes errors.Is(err, [ErrAddressInUse]) true.
func (e *InUseError) Is(target error) bool { return target == ErrAddressInUse }
