// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package asghooks answers Auto Scaling's lifecycle hooks. The function that handles them uses it, by the ports of package workerhook.
//
// It promises to name a wait by its token alone, so that a late answer meets no later wait of the same instance, and to say by the
// sentinels of package lifecycle what an error means. It makes each call once: when to try again is the caller's decision.
package asghooks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
	"github.com/multus-vpc/multus-vpc/internal/sdkhttp"
)

// callTimeout bounds one call. Auto Scaling answers in well under a second.
const callTimeout = 10 * time.Second

// Actions are the actions of Auto Scaling that a [Client] asks for.
func Actions() []string { return []string{"CompleteLifecycleAction", "RecordLifecycleActionHeartbeat"} }

// Client speaks to Auto Scaling. Its methods may be called concurrently.
type Client struct{ api *autoscaling.Client }

// New makes a client. It does not call Auto Scaling. The configuration's retry settings are ignored.
func New(sdk aws.Config) *Client {
	return &Client{api: autoscaling.NewFromConfig(sdk, func(o *autoscaling.Options) {
		o.Retryer = aws.NopRetryer{}
		o.HTTPClient = sdkhttp.Whole(o.HTTPClient)
	})}
}

// Complete ends the wait. Both [lifecycle.ErrNotWaiting] and [lifecycle.ErrRefused] are final.
func (c *Client) Complete(ctx context.Context, a lifecycle.Action, r lifecycle.Result) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.api.CompleteLifecycleAction(ctx, &autoscaling.CompleteLifecycleActionInput{
		AutoScalingGroupName: &a.Group, LifecycleHookName: &a.Hook, LifecycleActionToken: &a.Token, LifecycleActionResult: aws.String(string(r)),
	})
	if err != nil {
		return fmt.Errorf("answer %s to hook %s of %s: %w", r, a.Hook, a.Group, classify(err))
	}
	return nil
}

// Heartbeat starts the hook's timeout anew. Both [lifecycle.ErrNotWaiting] and [lifecycle.ErrRefused] are final.
func (c *Client) Heartbeat(ctx context.Context, a lifecycle.Action) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.api.RecordLifecycleActionHeartbeat(ctx, &autoscaling.RecordLifecycleActionHeartbeatInput{
		AutoScalingGroupName: &a.Group, LifecycleHookName: &a.Hook, LifecycleActionToken: &a.Token,
	})
	if err != nil {
		return fmt.Errorf("heartbeat to hook %s of %s: %w", a.Hook, a.Group, classify(err))
	}
	return nil
}

// classify wraps what the SDK says into what callers ask. An error without a sentinel may pass, and the call may have taken effect.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html
func classify(err error) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return err
	}
	switch api.ErrorCode() {
	case "ValidationError":
		if notWaiting(api.ErrorMessage()) {
			return fmt.Errorf("%w: %w", lifecycle.ErrNotWaiting, err)
		}
		return fmt.Errorf("%w: %w", lifecycle.ErrRefused, err)
	case "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "InvalidClientTokenId", "OptInRequired", "NotAuthorized":
		return fmt.Errorf("%w: %w", lifecycle.ErrRefused, err)
	case "ResourceContention": // a 500, but for another change that is under way
		return fmt.Errorf("%w: %w", lifecycle.ErrNotTaken, err)
	}
	if resp, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && resp.HTTPStatusCode() < http.StatusInternalServerError {
		return fmt.Errorf("%w: %w", lifecycle.ErrNotTaken, err)
	}
	return err
}

// notWaiting goes by the words: Auto Scaling has one code for everything that is wrong with a request.
//   - "No active Lifecycle Action found with token …": https://github.com/spacelift-io/terraform-aws-spacelift-workerpool-on-ec2/pull/197
//   - "AutoScalingGroup name not found - …": https://github.com/hashicorp/terraform-provider-aws/issues/8270
func notWaiting(message string) bool {
	return strings.Contains(message, "No active Lifecycle Action found") || strings.Contains(message, "AutoScalingGroup name not found")
}
