// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package imds

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Held reads all that one of the instance's ENIs holds: its private IPv4 addresses, the primary first, then its IPv6
// addresses; and its delegated prefixes, IPv4 before IPv6. Without such an ENI, and for one without an address because it is
// being attached or detached, the error is [eni.ErrNotFound]. It makes one request, and one more for each of the four kinds
// that the ENI has.
func (c *Client) Held(ctx context.Context, mac eni.MAC) ([]netip.Addr, []netip.Prefix, error) {
	r := reader{client: c, dir: macsPath + string(mac) + "/"}
	keys := strings.Fields(r.text(ctx, "")) // of kinds that the ENI does not have there is no key
	ipv4Prefixes := listed(ctx, &r, keys, "ipv4-prefix", netip.ParsePrefix)
	ipv6Prefixes := listed(ctx, &r, keys, "ipv6-prefix", netip.ParsePrefix)
	ipv6 := listed(ctx, &r, keys, "ipv6s", netip.ParseAddr)
	// The primary address comes and goes with the ENI only, so reading it last shows that the ENI was there all the while.
	ipv4 := listed(ctx, &r, keys, "local-ipv4s", netip.ParseAddr)
	if r.err != nil {
		return nil, nil, r.err
	}
	vanished := len(ipv4) == 0 && slices.Contains(keys, "local-ipv4s")
	if vanished || len(ipv4)+len(ipv6) == 0 {
		return nil, nil, fmt.Errorf("read the addresses of %s from the instance metadata: %w", mac, eni.ErrNotFound)
	}
	return slices.Concat(ipv4, ipv6), slices.Concat(ipv4Prefixes, ipv6Prefixes), nil
}

// listed reads a key if the directory has it.
func listed[T any](ctx context.Context, r *reader, keys []string, key string, parse func(string) (T, error)) []T {
	if !slices.Contains(keys, key) {
		return nil
	}
	return list(ctx, r, key, parse)
}
