// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package ec2eni is the hand that touches EC2: it reads ENIs, subnets, reservations and limits, and assigns and unassigns
// addresses. The agent uses it; it is the only package that imports the EC2 SDK. One call of a method is one request, or one
// per page: nothing is retried here, because a retry after a lost reply would hide what happened, and because back-off
// belongs to who knows what the request is worth. Errors wrap the sentinels of package eni. Which address to take, when and
// for whom does not belong here.
package ec2eni

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/sdkhttp"
)

const (
	// maxFilterValues is EC2's limit for one call, all filters together.
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
	maxFilterValues = 200
	// pageSize is the largest that EC2 gives.
	pageSize = 1000
)

// The defaults of [Config]. EC2 answers in well under a second; an ADD that waits for it gives up after 15 s.
const (
	DefaultReadTimeout  = 10 * time.Second
	DefaultWriteTimeout = 15 * time.Second
)

// Config makes a [Client].
type Config struct {
	// SDK gives Region, credentials, HTTP client and, from AWS_ENDPOINT_URL_EC2, the endpoint. Its retry settings are ignored.
	SDK aws.Config
	// Log gets a line for every call: reads that succeed at debug level, the rest at info. Nil means none.
	Log *slog.Logger
	// Observe is called after every call, concurrently, and must be quick. Nil means nobody does.
	Observe func(Call)
	// ReadTimeout and WriteTimeout bound one request; 0 means the default.
	ReadTimeout, WriteTimeout time.Duration
}

// Call is one request to EC2 as it went.
type Call struct {
	Action   string // "AssignPrivateIpAddresses"
	Duration time.Duration
	// Outcome is "ok", EC2's error code, or why there was no answer: [OutcomeNotSent], [OutcomeTimeout], [OutcomeCancelled]
	// or [OutcomeNoReply].
	Outcome string
}

// Outcomes of a [Call] that EC2 has no word for.
const (
	OutcomeOK        = "ok"
	OutcomeNotSent   = "not-sent" // no credentials, no connection, or given up before it left
	OutcomeTimeout   = "timeout"
	OutcomeCancelled = "cancelled"
	OutcomeNoReply   = "no-reply" // the connection broke, or the answer could not be read
)

// Client speaks to EC2. Its methods may be called concurrently.
type Client struct {
	ec2 *ec2.Client
}

// New makes a client. It does not call EC2.
func New(cfg Config) *Client {
	o := observer{
		log: cfg.Log, observe: cfg.Observe,
		readTimeout: orDefault(cfg.ReadTimeout, DefaultReadTimeout), writeTimeout: orDefault(cfg.WriteTimeout, DefaultWriteTimeout),
	}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if o.observe == nil {
		o.observe = func(Call) {}
	}
	return &Client{ec2: ec2.NewFromConfig(cfg.SDK, func(options *ec2.Options) {
		options.Retryer = aws.NopRetryer{}
		options.HTTPClient = sdkhttp.Whole(options.HTTPClient)
		options.APIOptions = append(options.APIOptions, o.install)
	})}
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// Assign gives the ENI these IPv4 addresses as secondary ones. With reassign false it is a compare-and-set: when another ENI
// holds one of them the error is [eni.ErrAddressInUse], and an [*eni.InUseError] in its chain has the addresses that EC2 named.
// EC2 does not document that the others were left alone then: read back.
//
// With reassign true the addresses move, asynchronously, from whichever ENI holds them as secondary ones. After
// [eni.ErrOutcomeUnknown] read back before anything else; after any other error that does not wrap ErrAddressInUse nothing
// was changed.
func (c *Client) Assign(ctx context.Context, id eni.ID, addrs []netip.Addr, reassign bool) error {
	if len(addrs) == 0 {
		return nil
	}
	names, err := onlyIPv4(addrs)
	if err != nil {
		return fmt.Errorf("assign to %s: %w", id, err)
	}
	out, err := c.ec2.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
		NetworkInterfaceId: aws.String(string(id)),
		PrivateIpAddresses: names,
		AllowReassignment:  aws.Bool(reassign),
	})
	if err == nil {
		err = unconfirmed(addrs, ipv4Names(out.AssignedPrivateIpAddresses), netip.ParseAddr)
	}
	if err != nil {
		return fmt.Errorf("assign %s to %s: %w", some(names), id, err)
	}
	return nil
}

func ipv4Names(assigned []types.AssignedPrivateIpAddress) []string {
	names := make([]string, len(assigned))
	for i, a := range assigned {
		names[i] = aws.ToString(a.PrivateIpAddress)
	}
	return names
}

// unconfirmed compares what was asked for with an answer that names what was done. One without any is taken at its word.
func unconfirmed[T interface {
	comparable
	fmt.Stringer
}](want []T, names []string, parse func(string) (T, error)) error {
	missing := slices.DeleteFunc(slices.Clone(want), func(w T) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			got, err := parse(name)
			return err == nil && got == w
		})
	})
	if len(names) == 0 || len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: the answer lacks %s", eni.ErrOutcomeUnknown, some(texts(missing)))
}

// Unassign takes secondary IPv4 addresses away from the ENI. When one of them is not there the error is [eni.ErrNotAssigned]
// and none was taken. After [eni.ErrOutcomeUnknown] read back; after any other error nothing was changed.
func (c *Client) Unassign(ctx context.Context, id eni.ID, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	names, err := onlyIPv4(addrs)
	if err != nil {
		return fmt.Errorf("unassign from %s: %w", id, err)
	}
	_, err = c.ec2.UnassignPrivateIpAddresses(ctx, &ec2.UnassignPrivateIpAddressesInput{
		NetworkInterfaceId: aws.String(string(id)),
		PrivateIpAddresses: names,
	})
	if err != nil {
		return fmt.Errorf("unassign %s from %s: %w", some(names), id, err)
	}
	return nil
}

func onlyIPv4(addrs []netip.Addr) ([]string, error) {
	for _, a := range addrs {
		if !a.Is4() {
			return nil, fmt.Errorf("%s is no IPv4 address", a)
		}
	}
	return texts(addrs), nil
}

func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}

// some is a list short enough for an error message.
func some(names []string) string {
	const limit = 4
	if len(names) <= limit {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:limit-1], ", "), len(names)-limit+1)
}
