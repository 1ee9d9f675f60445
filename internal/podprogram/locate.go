// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/imds"
)

// byMetadata finds ENIs in the instance metadata, where pods reach it (hop limit 2).
type byMetadata struct{ imds *imds.Client }

// Locate implements [podsync.Locator].
func (l byMetadata) Locate(ctx context.Context, mac eni.MAC) (eni.Interface, error) {
	all, err := l.imds.Interfaces(ctx)
	if err != nil {
		return eni.Interface{}, err
	}
	if i := slices.IndexFunc(all, func(i eni.Interface) bool { return i.MAC == mac }); i >= 0 {
		return all[i], nil
	}
	return eni.Interface{}, fmt.Errorf("the worker has no ENI with MAC %s: %w", mac, eni.ErrNotFound)
}

// Held implements [podsync.Locator].
func (l byMetadata) Held(ctx context.Context, mac eni.MAC) ([]netip.Addr, error) {
	addrs, _, err := l.imds.Held(ctx, mac)
	return addrs, err
}

// byEC2 finds ENIs by their MAC in EC2, and makes sure that it is this worker's by an address of the worker.
type byEC2 struct {
	ec2  *ec2eni.Client
	node netip.Addr // invalid: the MAC has to do
}

// Locate implements [podsync.Locator].
func (l byEC2) Locate(ctx context.Context, mac eni.MAC) (eni.Interface, error) {
	found, err := l.ec2.InterfacesWithMAC(ctx, mac)
	if err != nil {
		return eni.Interface{}, err
	}
	for _, i := range found {
		if i.InstanceID == "" {
			continue
		}
		if !l.node.IsValid() {
			return i, nil
		}
		siblings, err := l.ec2.InterfacesOf(ctx, i.InstanceID)
		if err != nil {
			return eni.Interface{}, err
		}
		if slices.ContainsFunc(siblings, func(s eni.Interface) bool { return s.Holds(l.node) }) {
			return i, nil
		}
	}
	return eni.Interface{}, fmt.Errorf("no ENI with MAC %s on the worker %s: %w", mac, l.node, eni.ErrNotFound)
}

// Held implements [podsync.Locator]: there is no cheaper source than EC2.
func (byEC2) Held(context.Context, eni.MAC) ([]netip.Addr, error) { return nil, nil }
