// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// View reads the account as one of its readers sees it: as it was at a moment. What it returns must not be changed.
//
// Only moments within the longest lag before the newest change can be told apart.
type View struct {
	cloud *Cloud
	at    time.Time
}

// View returns the account as of t. The readers are one lag behind: View(now.Add(-c.Lags().IMDS)) is what the instance
// metadata shows now.
func (c *Cloud) View(t time.Time) View { return View{cloud: c, at: t} }

// At is the moment that the view shows.
func (v View) At() time.Time { return v.at }

// VPCs returns all VPCs, sorted by ID.
func (v View) VPCs() []VPC {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	return v.cloud.vpcs.allAsOf(v.at)
}

// VPC returns one VPC.
func (v View) VPC(id string) (VPC, bool) {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	return v.cloud.vpcs.asOf(v.at, id)
}

// Subnets returns all subnets, sorted by ID.
func (v View) Subnets() []Subnet {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	return v.cloud.subnets.allAsOf(v.at)
}

// Subnet returns one subnet.
func (v View) Subnet(id string) (Subnet, bool) {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	return v.cloud.subnets.asOf(v.at, id)
}

// Reservations returns all subnet CIDR reservations, sorted by ID.
func (v View) Reservations() []Reservation {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	return v.cloud.reservations.allAsOf(v.at)
}

// Instances returns all instances, sorted by ID. Terminated ones stay visible for an hour.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/how-ec2-instance-termination-works.html
func (v View) Instances() []Instance {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	all := slices.DeleteFunc(v.cloud.instances.allAsOf(v.at), v.forgotten)
	for n, i := range all {
		all[n] = i.at(v.at)
	}
	return all
}

// Instance returns one instance.
func (v View) Instance(id string) (Instance, bool) {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	i, ok := v.cloud.instances.asOf(v.at, id)
	return i.at(v.at), ok && !v.forgotten(i)
}

func (v View) forgotten(i Instance) bool {
	return i.State == StateTerminated && v.at.Sub(i.TerminatedAt) > time.Hour
}

// AllENIs returns all ENIs, attached or not, sorted by ID.
func (v View) AllENIs() []ENI {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	return v.cloud.enis.allAsOf(v.at)
}

// ENI returns one ENI.
func (v View) ENI(id string) (ENI, bool) {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	return v.cloud.enis.asOf(v.at, id)
}

// ENIs returns the ENIs attached to an instance, sorted by network card and device index.
func (v View) ENIs(instanceID string) []ENI {
	var out []ENI
	for _, e := range v.AllENIs() {
		if e.Attachment != nil && e.Attachment.InstanceID == instanceID {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, bySlot)
	return out
}

// bySlot orders the ENIs of one instance.
func bySlot(a, b ENI) int {
	return cmp.Or(
		cmp.Compare(a.Attachment.NetworkCard, b.Attachment.NetworkCard),
		cmp.Compare(a.Attachment.DeviceIndex, b.Attachment.DeviceIndex))
}

// Routes returns where the VPC delivers each single address: address → ENI ID. An ENI that is not attached is listed
// too; what is sent to it goes nowhere.
func (v View) Routes() map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for _, e := range v.AllENIs() {
		for _, a := range e.Addresses() {
			out[a] = e.ID
		}
	}
	return out
}

// RoutePrefixes returns where the VPC delivers each delegated prefix: prefix → ENI ID.
func (v View) RoutePrefixes() map[netip.Prefix]string {
	out := map[netip.Prefix]string{}
	for _, e := range v.AllENIs() {
		for _, p := range e.AllPrefixes() {
			out[p] = e.ID
		}
	}
	return out
}
