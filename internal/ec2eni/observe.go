// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	smithy "github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// Actions are the EC2 actions that a [Client] asks for where ENIs are as they are.
func Actions() []string {
	return []string{
		"AssignIpv6Addresses", "AssignPrivateIpAddresses", "DescribeInstanceTypes", "DescribeNetworkInterfaces", "DescribeSubnets",
		"GetSubnetCidrReservations", "UnassignIpv6Addresses", "UnassignPrivateIpAddresses",
	}
}

// WorkerActions are those that it asks for besides where it gives workers their ENIs.
func WorkerActions() []string {
	return []string{
		"AttachNetworkInterface", "CreateNetworkInterface", "DeleteNetworkInterface", "DescribeInstances", "DescribeSecurityGroups",
		"DetachNetworkInterface", "ModifyNetworkInterfaceAttribute",
	}
}

// Codes are EC2's error codes that an operator of the agent may meet often enough to count each by itself.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html
func Codes() []string {
	return []string{
		"AccessDenied", "AuthFailure", "EC2ThrottledException", "ExpiredToken", "InsufficientCidrBlocks", "InsufficientFreeAddressesInSubnet",
		"InternalError", "InternalFailure", "InvalidNetworkInterfaceID.NotFound", "InvalidParameterValue", "PrivateIpAddressLimitExceeded",
		"RequestExpired", "RequestLimitExceeded", "Resource.AlreadyAssigned", "ServiceUnavailable", "Throttling", "Unavailable",
		"UnauthorizedOperation",
	}
}

// observer stands around every request: it bounds the time, classifies the error, and says how it went.
type observer struct {
	log                       *slog.Logger
	observe                   func(Call)
	readTimeout, writeTimeout time.Duration
}

// install puts the observer into an operation's stack: outside of everything, and directly before the transport.
func (o observer) install(stack *middleware.Stack) error {
	if err := stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Observe", o.around), middleware.Before); err != nil {
		return err
	}
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("MarkSent", markSent), middleware.After)
}

func (o observer) around(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (
	out middleware.InitializeOutput, metadata middleware.Metadata, err error,
) {
	call := Call{Action: middleware.GetOperationName(ctx), Outcome: OutcomeOK}
	write, timeout := isWrite(call.Action), o.readTimeout
	if write {
		timeout = o.writeTimeout
	}
	var sent bool
	bounded, cancel := context.WithTimeout(context.WithValue(ctx, sentKey{}, &sent), timeout)
	defer cancel()

	begin := time.Now()
	out, metadata, err = next.HandleInitialize(bounded, in)
	call.Duration = time.Since(begin)
	if err != nil {
		call.Outcome = outcomeOf(err, sent)
		err = classify(err, write, sent)
	}
	o.observe(call)
	o.report(ctx, call, write, metadata, err)
	return out, metadata, err
}

func (o observer) report(ctx context.Context, call Call, write bool, metadata middleware.Metadata, err error) {
	level := slog.LevelInfo
	if err == nil && !write {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{slog.String("action", call.Action), slog.Duration("duration", call.Duration), slog.String("outcome", call.Outcome)}
	if id, ok := awsmiddleware.GetRequestIDMetadata(metadata); ok { // what AWS support asks for
		attrs = append(attrs, slog.String("requestID", id))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	o.log.LogAttrs(ctx, level, "EC2 call", attrs...)
}

// isWrite goes by EC2's naming: what only reads is called Describe or Get.
func isWrite(action string) bool {
	return !strings.HasPrefix(action, "Describe") && !strings.HasPrefix(action, "Get")
}

func outcomeOf(err error, sent bool) string {
	api, answered := errors.AsType[smithy.APIError](err)
	switch {
	case answered:
		return api.ErrorCode()
	case !sent || isDial(err):
		return OutcomeNotSent
	case errors.Is(err, context.DeadlineExceeded):
		return OutcomeTimeout
	case errors.Is(err, context.Canceled):
		return OutcomeCancelled
	}
	return OutcomeNoReply
}

type sentKey struct{}

// markSent notes that the request is about to leave. One that was given up before does not leave.
func markSent(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	out middleware.DeserializeOutput, metadata middleware.Metadata, err error,
) {
	if err = ctx.Err(); err != nil {
		return out, metadata, err
	}
	if sent, ok := ctx.Value(sentKey{}).(*bool); ok {
		*sent = true
	}
	return next.HandleDeserialize(ctx, in)
}
