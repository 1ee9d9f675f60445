// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package imds reads the EC2 instance metadata service: who this instance is, and which ENIs and addresses it has. The agent
// asks here what it would otherwise have to ask EC2, where requests are a budget that the whole account shares. What it says
// comes later than EC2's own answer, and it knows no tags; whether an address was lost must not be decided by it. It reads
// only, and decides nothing.
package imds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

const (
	// readTimeout bounds one key. The service answers from the host within milliseconds.
	readTimeout = 2 * time.Second
	// readLimit bounds how many ENIs are read at once. The service throttles an instance that asks too much at once.
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html#instancedata-throttling
	readLimit = 4
	// longest bounds one key's value: an ENI of the largest types holds 50 addresses of each family, some 2 KiB.
	longest = 256 << 10
)

const macsPath = "network/interfaces/macs/"

// Config says how to reach the service.
type Config struct {
	// SDK gives the HTTP client and, by AWS_EC2_METADATA_SERVICE_ENDPOINT and its siblings, the endpoint. The SDK drops a path
	// in the endpoint.
	SDK aws.Config
}

// Client reads the metadata of the instance that it runs on. Its methods may be called concurrently.
type Client struct {
	sdk *imds.Client
}

// New makes a client that uses session tokens (IMDSv2) only.
func New(cfg Config) *Client {
	return &Client{sdk: imds.NewFromConfig(cfg.SDK, func(o *imds.Options) { o.EnableFallback = aws.FalseTernary })}
}

// Instance says which instance this is.
func (c *Client) Instance(ctx context.Context) (eni.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	doc, err := c.sdk.GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		return eni.Instance{}, fmt.Errorf("read the instance identity document from the instance metadata: %w", err)
	}
	return eni.Instance{ID: eni.InstanceID(doc.InstanceID), Type: doc.InstanceType, AZ: doc.AvailabilityZone, Region: doc.Region}, nil
}

// Interfaces lists the instance's ENIs, without tags. One that is being attached or detached, so that only some of its keys
// are there, is left out.
func (c *Client) Interfaces(ctx context.Context) ([]eni.Interface, error) {
	instance, err := c.read(ctx, "instance-id")
	if err != nil {
		return nil, err
	}
	macs, err := c.lines(ctx, macsPath)
	if err != nil {
		return nil, err
	}
	all := make([]*eni.Interface, len(macs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readLimit)
	for n, mac := range macs {
		group.Go(func() (err error) {
			all[n], err = c.networkInterface(ctx, eni.ParseMAC(mac))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var interfaces []eni.Interface
	for _, i := range all {
		if i != nil {
			i.InstanceID = eni.InstanceID(instance)
			interfaces = append(interfaces, *i)
		}
	}
	return interfaces, nil
}

// MACs lists the instance's ENIs by their MAC, in one request; one that is being attached or detached may be among them.
func (c *Client) MACs(ctx context.Context) ([]eni.MAC, error) {
	lines, err := c.lines(ctx, macsPath)
	macs := make([]eni.MAC, len(lines))
	for i, l := range lines {
		macs[i] = eni.ParseMAC(strings.TrimSuffix(l, "/"))
	}
	return macs, err
}

// Addresses lists the private IPv4 addresses of one of the instance's ENIs, the primary first. Without such an ENI, or
// without IPv4 on it, the error is [eni.ErrNotFound].
func (c *Client) Addresses(ctx context.Context, mac eni.MAC) ([]netip.Addr, error) {
	path := macsPath + string(mac) + "/local-ipv4s"
	lines, err := c.lines(ctx, path)
	if isNotFound(err) {
		return nil, fmt.Errorf("%w: %w", eni.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	return parseAll(path, lines, netip.ParseAddr)
}

// networkInterface reads one ENI, nil when it is not, or not wholly, there.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
func (c *Client) networkInterface(ctx context.Context, mac eni.MAC) (*eni.Interface, error) {
	r := reader{client: c, dir: macsPath + string(mac) + "/"}
	i := eni.Interface{MAC: mac}
	ipv4 := addrs(ctx, &r, "local-ipv4s")
	i.IPv6 = addrs(ctx, &r, "ipv6s")
	i.Prefixes = append(prefixes(ctx, &r, "ipv4-prefix"), prefixes(ctx, &r, "ipv6-prefix")...)
	// The key is absent on instance types with one card.
	i.NetworkCard = number(ctx, &r, "network-card")
	// Absence means something above. Only now are the keys read that every ENI has, so that one which vanished meanwhile
	// does not look like one without addresses.
	i.DeviceIndex = number(ctx, &r, "device-number")
	whole := r.found
	i.SubnetID = eni.SubnetID(r.text(ctx, "subnet-id"))
	i.ID = eni.ID(r.text(ctx, "interface-id"))
	if r.err != nil {
		return nil, r.err
	}
	if !whole || i.SubnetID == "" || i.ID == "" || len(ipv4)+len(i.IPv6) == 0 {
		return nil, nil
	}
	if len(ipv4) > 0 {
		i.Primary, i.Secondary = ipv4[0], ipv4[1:]
	}
	return &i, nil
}

// reader reads keys of one directory, an absent one as empty, until the first other error.
type reader struct {
	client *Client
	dir    string
	found  bool // whether the last key was there
	err    error
}

func (r *reader) text(ctx context.Context, key string) string {
	if r.found = false; r.err != nil {
		return ""
	}
	s, err := r.client.read(ctx, r.dir+key)
	r.found = err == nil
	if err != nil && !isNotFound(err) {
		r.err = err
	}
	return s
}

func number(ctx context.Context, r *reader, key string) int {
	s := r.text(ctx, key)
	if !r.found {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = fmt.Errorf("%d is less than 0", n)
	}
	if err != nil {
		r.err = fmt.Errorf("instance metadata %s%s: %w", r.dir, key, err)
	}
	return n
}

func addrs(ctx context.Context, r *reader, key string) []netip.Addr {
	return list(ctx, r, key, netip.ParseAddr)
}

func prefixes(ctx context.Context, r *reader, key string) []netip.Prefix {
	return list(ctx, r, key, netip.ParsePrefix)
}

func list[T any](ctx context.Context, r *reader, key string, parse func(string) (T, error)) []T {
	values, err := parseAll(r.dir+key, strings.Fields(r.text(ctx, key)), parse)
	if err != nil && r.err == nil {
		r.err = err
	}
	return values
}

func parseAll[T any](path string, lines []string, parse func(string) (T, error)) ([]T, error) {
	var values []T
	for _, line := range lines {
		v, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("instance metadata %s: %w", path, err)
		}
		values = append(values, v)
	}
	return values, nil
}

func (c *Client) lines(ctx context.Context, path string) ([]string, error) {
	s, err := c.read(ctx, path)
	return strings.Fields(s), err
}

func (c *Client) read(ctx context.Context, path string) (_ string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	out, err := c.sdk.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", fmt.Errorf("read %s from the instance metadata: %w", path, err)
	}
	body, err := io.ReadAll(io.LimitReader(out.Content, longest+1))
	if err == nil && len(body) > longest {
		err = fmt.Errorf("the answer has more than %d bytes", longest)
	}
	if err = errors.Join(err, out.Content.Close()); err != nil {
		return "", fmt.Errorf("read %s from the instance metadata: %w", path, err)
	}
	return strings.TrimSpace(string(body)), nil
}

func isNotFound(err error) bool {
	e, ok := errors.AsType[*smithyhttp.ResponseError](err)
	return ok && e.HTTPStatusCode() == http.StatusNotFound
}
