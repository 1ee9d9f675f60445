// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package simulate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// The actions that the simulated agents call.
const (
	actionAssign       = "AssignPrivateIpAddresses"
	actionUnassign     = "UnassignPrivateIpAddresses"
	actionInterfaces   = "DescribeNetworkInterfaces"
	actionTypes        = "DescribeInstanceTypes"
	actionSubnets      = "DescribeSubnets"
	actionReservations = "GetSubnetCidrReservations"
)

// client is one worker's EC2 and instance metadata without the SDK and the wire: each method is the one request that
// package ec2eni makes of it, through the account's endpoint. What the simulated fleets do not use (IPv6, prefixes,
// addresses by count, other workers' ENIs) is the embedded nil interface's, and panics.
type client struct {
	pool.EC2
	account   *account
	worker    *worker
	transport http.RoundTripper
}

// call sends one request. What EC2 refuses is an error of package eni.
func (c *client) call(ctx context.Context, action string, op operation) error {
	served := false
	var refusal error
	ctx = withOperation(ctx, func() error {
		served = true
		refusal = op()
		return refusal
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ec2/", strings.NewReader("Action="+action))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Credential="+c.worker.name+"/")
	resp, err := c.transport.RoundTrip(r)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w: %w", action, eni.ErrOutcomeUnknown, err)
	case !served:
		return fmt.Errorf("%s: %w: status %d", action, eni.ErrThrottled, resp.StatusCode)
	case refusal != nil:
		return fmt.Errorf("%s: %w", action, meaning(refusal))
	}
	return nil
}

// writeError answers in EC2's format, for the endpoint's call log.
func writeError(w http.ResponseWriter, err error) {
	status, code := http.StatusInternalServerError, "InternalError"
	if api, ok := errors.AsType[*vpc.APIError](err); ok {
		status, code = api.HTTPStatus(), api.Code
	}
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Response><Errors><Error><Code>%s</Code></Error></Errors></Response>", code) // into memory
}

// meaning is what package ec2eni makes of the refusals that the simulated calls can meet.
func meaning(err error) error {
	api, ok := errors.AsType[*vpc.APIError](err)
	switch {
	case !ok:
		return err
	case api.Code == "PrivateIpAddressLimitExceeded":
		return fmt.Errorf("%w: %w", eni.ErrSlotsFull, err)
	case strings.Contains(api.Message, "move is not allowed"):
		list, _, _ := strings.Cut(strings.TrimPrefix(api.Message, "["), "]")
		inUse := &eni.InUseError{}
		for s := range strings.SplitSeq(list, ", ") {
			inUse.Addrs = append(inUse.Addrs, netip.MustParseAddr(s))
		}
		return fmt.Errorf("%w: %w", inUse, err)
	case strings.Contains(api.Message, "not assigned to interface"):
		return fmt.Errorf("%w: %w", eni.ErrNotAssigned, err)
	}
	return err
}

// described is the account as EC2's reads show it now.
func (c *client) described() vpc.View {
	return c.account.cloud.View(time.Now().Add(-lags().Describe))
}

// Limits implements [pool.EC2].
func (c *client) Limits(ctx context.Context, instanceType string) (l eni.Limits, err error) {
	err = c.call(ctx, actionTypes, func() error {
		t, ok := vpc.LookupInstanceType(instanceType)
		if !ok {
			return vpc.InvalidValue("no instance type %s", instanceType)
		}
		l = eni.Limits{Interfaces: t.Interfaces(), IPv4PerInterface: t.IPv4PerInterface, IPv6PerInterface: t.IPv6PerInterface()}
		return nil
	})
	return l, err
}

// Subnets implements [pool.EC2].
func (c *client) Subnets(ctx context.Context, ids []eni.SubnetID) (subnets []eni.Subnet, err error) {
	err = c.call(ctx, actionSubnets, func() error {
		for _, id := range ids {
			s, ok := c.described().Subnet(string(id))
			if !ok {
				return vpc.Errorf("InvalidSubnetID.NotFound", "%s", id)
			}
			subnets = append(subnets, eni.Subnet{ID: id, AZ: s.AZ, IPv4: s.IPv4, Tags: s.Tags})
		}
		return nil
	})
	return subnets, err
}

// Reservations implements [pool.EC2].
func (c *client) Reservations(ctx context.Context, id eni.SubnetID) (rs []eni.Reservation, err error) {
	err = c.call(ctx, actionReservations, func() error {
		for _, r := range c.described().Reservations() {
			if r.SubnetID == string(id) {
				rs = append(rs, eni.Reservation{ID: eni.ReservationID(r.ID), SubnetID: id, CIDR: r.CIDR, Type: eni.ReservationType(r.Type), Tags: r.Tags})
			}
		}
		return nil
	})
	return rs, err
}

// InterfacesOf implements [pool.EC2].
func (c *client) InterfacesOf(ctx context.Context, id eni.InstanceID) (all []eni.Interface, err error) {
	if id != c.worker.instance.ID {
		return nil, fmt.Errorf("%s asks for the ENIs of %s", c.worker.name, id)
	}
	err = c.call(ctx, actionInterfaces, func() error {
		all = c.shown(c.described())
		return nil
	})
	return all, err
}

// shown are the worker's ENIs as a reader sees them. No ENI of a simulation is ever detached.
func (c *client) shown(v vpc.View) (all []eni.Interface) {
	for _, id := range c.worker.enis {
		if e, ok := v.ENI(id); ok {
			all = append(all, interfaceOf(e))
		}
	}
	return all
}

func interfaceOf(e vpc.ENI) eni.Interface {
	return eni.Interface{
		ID: eni.ID(e.ID), MAC: eni.ParseMAC(e.MAC), InstanceID: eni.InstanceID(e.Attachment.InstanceID),
		NetworkCard: e.Attachment.NetworkCard, DeviceIndex: e.Attachment.DeviceIndex, SubnetID: eni.SubnetID(e.SubnetID),
		Primary: e.Primary, Secondary: e.Secondary, Tags: e.Tags,
	}
}

// Owners implements [pool.EC2].
func (c *client) Owners(ctx context.Context, subnet eni.SubnetID, addrs []netip.Addr) (found map[netip.Addr]eni.ID, err error) {
	if len(addrs) > 199 { // the subnet is a value of the filter too
		return nil, fmt.Errorf("%d addresses do not fit into one request", len(addrs))
	}
	err = c.call(ctx, actionInterfaces, func() error {
		found = c.account.owners.find(c.described().At(), subnet, addrs)
		return nil
	})
	return found, err
}

// Assign implements [pool.EC2].
func (c *client) Assign(ctx context.Context, id eni.ID, addrs []netip.Addr, reassign bool) error {
	return c.call(ctx, actionAssign, func() error {
		now := time.Now()
		_, err := c.account.cloud.AssignPrivateIPAddresses(now, vpc.AssignPrivateIPAddressesInput{
			NetworkInterfaceID: string(id), Addresses: addrs, AllowReassignment: reassign,
		})
		c.account.owners.note(now, string(id))
		return err
	})
}

// Unassign implements [pool.EC2].
func (c *client) Unassign(ctx context.Context, id eni.ID, addrs []netip.Addr) error {
	return c.call(ctx, actionUnassign, func() error {
		now := time.Now()
		err := c.account.cloud.UnassignPrivateIPAddresses(now, vpc.UnassignInput{NetworkInterfaceID: string(id), Addresses: addrs})
		c.account.owners.note(now, string(id))
		return err
	})
}

// metadataView is the account as the instance metadata shows it now.
func (c *client) metadataView() vpc.View {
	return c.account.cloud.View(time.Now().Add(-lags().IMDS))
}

// Interfaces implements [pool.Metadata], which takes no IDs: it hides the method of the same name of [pool.EC2].
func (m metadataOf) Interfaces(context.Context) ([]eni.Interface, error) {
	all := m.shown(m.metadataView())
	for i := range all {
		all[i].Tags = nil
	}
	return all, nil
}

// metadataOf is a worker's instance metadata.
type metadataOf struct{ *client }

// MACs implements [pool.Metadata].
func (m metadataOf) MACs(context.Context) ([]eni.MAC, error) {
	var macs []eni.MAC
	for _, i := range m.shown(m.metadataView()) {
		macs = append(macs, i.MAC)
	}
	return macs, nil
}

// Held implements [pool.Metadata].
func (m metadataOf) Held(_ context.Context, mac eni.MAC) ([]netip.Addr, []netip.Prefix, error) {
	for _, i := range m.shown(m.metadataView()) {
		if i.MAC == mac {
			return append([]netip.Addr{i.Primary}, i.Secondary...), nil, nil
		}
	}
	return nil, nil, fmt.Errorf("no ENI %s: %w", mac, eni.ErrNotFound)
}
