// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// What EC2's error codes mean to our callers. A code that is not here stays what it is.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html
func sentinelOf(code, message string) error {
	if Throttled(code) {
		return eni.ErrThrottled
	}
	switch code {
	case "PrivateIpAddressLimitExceeded":
		return eni.ErrSlotsFull
	case "InsufficientFreeAddressesInSubnet":
		return eni.ErrSubnetFull
	case "InsufficientCidrBlocks": // https://github.com/aws/amazon-vpc-cni-k8s/pull/1585
		return eni.ErrNoPrefix
	case "UnauthorizedOperation", "AuthFailure", "AccessDenied", "AccessDeniedException":
		return eni.ErrUnauthorized
	case "InvalidIPAddress.InUse": // CreateNetworkInterface
		return &eni.InUseError{}
	case "IdempotentParameterMismatch":
		return eni.ErrTokenUsed
	case "AttachmentLimitExceeded":
		return eni.ErrInstanceFull
	case "IncorrectState", "IncorrectInstanceState":
		return eni.ErrNotReady
	case "InvalidInstanceID":
		// "The pending instance 'i-…' is not in a valid state for this operation.", https://github.com/bevacqua/grunt-ec2/issues/15
		return eni.ErrNotReady
	case "InvalidNetworkInterface.InUse":
		return eni.ErrInUse
	case "Resource.AlreadyAssigned":
		return &eni.InUseError{Addrs: bracketed(message)}
	case "InvalidParameterValue":
		return sentinelOfMessage(message)
	}
	if strings.HasSuffix(code, ".NotFound") {
		return eni.ErrNotFound
	}
	return nil
}

// Throttled reports whether EC2 limits the request rate by the code.
func Throttled(code string) bool {
	switch code {
	case "RequestLimitExceeded", "Throttling", "ThrottlingException", "ThrottledException",
		"RequestThrottled", "RequestThrottledException", "EC2ThrottledException", "TooManyRequestsException":
		return true
	}
	return false
}

// sentinelOfMessage parts the meanings of InvalidParameterValue, for which EC2 has no other sign than the words.
func sentinelOfMessage(message string) error {
	switch {
	// "[10.0.0.5,10.0.0.6] assigned, but move is not allowed."
	// https://github.com/ansible/ansible/blob/stable-2.9/lib/ansible/modules/cloud/amazon/ec2_eni.py
	case strings.Contains(message, "move is not allowed"):
		return &eni.InUseError{Addrs: bracketed(message)}
	// "Instance 'i-…' already has an interface attached at device index '1'."
	// https://github.com/hashicorp/terraform-provider-aws/pull/906
	case strings.Contains(message, "already has an interface attached at device index"):
		return eni.ErrIndexTaken
	// "Network interface 'eni-…' is currently in use.", https://github.com/gruntwork-io/cloud-nuke/issues/431
	case strings.HasPrefix(message, "Network interface") && strings.Contains(message, "is currently in use"):
		return eni.ErrInUse
	// Unverified: nobody has published what AssignIpv6Addresses says of an address that is taken. These are the words of
	// CreateNetworkInterface and RunInstances: https://github.com/aws/aws-cli/issues/7178.
	case strings.Contains(message, "already assigned"), strings.Contains(message, "already in use"), strings.Contains(message, "is in use"):
		return &eni.InUseError{Addrs: bracketed(message)}
	// "Some of the specified addresses are not assigned to interface eni-…"
	case strings.Contains(message, "not assigned to interface"):
		return eni.ErrNotAssigned
	// "There aren't sufficient free Ipv4 addresses or prefixes", https://github.com/cilium/cilium/issues/31016
	case strings.Contains(message, "sufficient free Ipv4 addresses"):
		return eni.ErrSubnetFull
	}
	return nil
}

// bracketed reads the addresses between the first pair of brackets. What is no address there is passed over: the caller may
// not rely on the list anyway.
func bracketed(message string) []netip.Addr {
	_, rest, _ := strings.Cut(message, "[")
	list, _, closed := strings.Cut(rest, "]")
	if !closed {
		return nil
	}
	var addrs []netip.Addr
	for s := range strings.SplitSeq(list, ",") {
		if a, err := netip.ParseAddr(strings.TrimSpace(s)); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// classify wraps what the SDK says of one request into what our callers ask. sent is whether it may have left this process.
func classify(err error, write, sent bool) error {
	if err == nil {
		return nil
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		if sentinel := sentinelOf(api.ErrorCode(), api.ErrorMessage()); sentinel != nil {
			return fmt.Errorf("%w: %w", sentinel, err)
		}
		broken := isServerFault(api.ErrorCode(), err)
		if !broken && !expired(api.ErrorCode()) {
			return &refusedError{err}
		}
		if !write || !broken {
			return err
		}
	}
	if write && sent && !isDial(err) {
		return fmt.Errorf("%w: %w", eni.ErrOutcomeUnknown, err)
	}
	return err
}

// refusedError is EC2's no without a sentinel of ours for the reason. Its text is EC2's.
type refusedError struct{ error }

func (e *refusedError) Is(target error) bool { return target == eni.ErrRefused }

func (e *refusedError) Unwrap() error { return e.error }

// expired reports whether the same request with newer credentials, or at once, could succeed.
func expired(code string) bool {
	return code == "ExpiredToken" || code == "RequestExpired" || code == "ExpiredTokenException"
}

// isServerFault reports whether the answer says that EC2 broke, which it may have done before or after the change.
func isServerFault(code string, err error) bool {
	switch code {
	case "InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable", "RequestTimeout":
		return true
	}
	resp, ok := errors.AsType[*smithyhttp.ResponseError](err)
	return ok && resp.HTTPStatusCode() >= 500
}

// isDial reports whether there was no connection to send the request on.
func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
