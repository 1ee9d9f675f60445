// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// wantError fails the test unless err is an [*vpc.APIError] with that code and message.
func wantError(t *testing.T, err error, code, message string) {
	t.Helper()
	var e *vpc.APIError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want %s", err, code)
	}
	if e.Code != code || e.Message != message {
		t.Fatalf("got  %v\nwant %s: %s", err, code, message)
	}
}

func addrs(list ...string) []netip.Addr {
	out := make([]netip.Addr, len(list))
	for i, s := range list {
		out[i] = addr(s)
	}
	return out
}

func (w *world) assign(eni int, reassign bool, list ...string) (vpc.Assigned, error) {
	return w.AssignPrivateIPAddresses(t0, vpc.AssignPrivateIPAddressesInput{
		NetworkInterfaceID: w.enis[eni].ID, AllowReassignment: reassign, Addresses: addrs(list...),
	})
}

func (w *world) unassign(eni int, list ...string) error {
	return w.UnassignPrivateIPAddresses(t0, vpc.UnassignInput{
		NetworkInterfaceID: w.enis[eni].ID, Addresses: addrs(list...),
	})
}

// owner is the worker's number whose ENI the address is routed to, or -1.
func (w *world) owner(a string) int {
	id := w.View(t0).Routes()[addr(a)]
	for i, e := range w.enis {
		if e.ID == id {
			return i
		}
	}
	return -1
}

func TestARefusedAssignmentChangesNothing(t *testing.T) {
	const outside = "Address does not fall within the subnet's address range"
	cases := []struct {
		name, code, message string
		addresses           []string
	}{
		{"taken", "InvalidParameterValue", "[10.10.1.70] assigned, but move is not allowed.", []string{"10.10.1.80", "10.10.1.70"}},
		{"outside the subnet", "InvalidParameterValue", outside, []string{"10.10.1.80", "10.10.2.5"}},
		{"of the other family", "InvalidParameterValue", outside, []string{"2001:db8:10:1::70"}},
		{"network address", "InvalidParameterValue", "Address 10.10.1.0 is in subnet's reserved range.", []string{"10.10.1.80", "10.10.1.0"}},
		{"router", "InvalidParameterValue", "Address 10.10.1.1 is in subnet's reserved range.", []string{"10.10.1.1"}},
		{"third after the network", "InvalidParameterValue", "Address 10.10.1.3 is in subnet's reserved range.", []string{"10.10.1.3"}},
		{"last", "InvalidParameterValue", "Address 10.10.1.255 is in subnet's reserved range.", []string{"10.10.1.255"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, vpc.Config{}, 2, "m5.2xlarge")
			_, err := w.assign(0, false, "10.10.1.70")
			fatal(t, err)
			before := w.View(t0).Routes()
			_, err = w.assign(1, false, c.addresses...)
			wantError(t, err, c.code, c.message)
			if diff := cmp.Diff(before, w.View(t0).Routes(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("routes changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestTheFirstAndLastAssignableAddressesAreAssigned(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 0, "")
	s, err := w.AddSubnet(t0, vpc.SubnetSetup{VPCID: w.vpc.ID, AZ: "us-west-2a", IPv4: prefix("10.10.9.0/24")})
	fatal(t, err)
	e, err := w.CreateNetworkInterface(t0, vpc.CreateNetworkInterfaceInput{
		SubnetID: s.ID, AddressRequest: vpc.AddressRequest{Primary: addr("10.10.9.4"), Secondary: addrs("10.10.9.254")},
	})
	fatal(t, err)
	if e.Primary != addr("10.10.9.4") || len(e.Secondary) != 1 {
		t.Errorf("the ENI has %v", e.IPv4())
	}
}

func TestReassignmentMovesASecondaryAndNeverAPrimary(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 2, "m5.2xlarge")
	_, err := w.assign(0, false, "10.10.1.70")
	fatal(t, err)
	_, err = w.assign(1, true, "10.10.1.70", "10.10.1.71")
	fatal(t, err)
	if got := w.owner("10.10.1.70"); got != 1 {
		t.Errorf("owner is %d", got)
	}
	primary := w.enis[0].Primary.String()
	_, err = w.assign(1, true, primary)
	wantError(t, err, "InvalidParameterValue",
		"["+primary+"] is the primary address of interface "+w.enis[0].ID+" and cannot be reassigned.")
}

func TestAssigningAnOwnedAddressFollowsTheConfiguration(t *testing.T) {
	for _, mode := range []string{vpc.AssignOwnedOK, vpc.AssignOwnedError} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, vpc.Config{AssignOwned: mode}, 1, "m5.2xlarge")
			_, err := w.assign(0, false, "10.10.1.70")
			fatal(t, err)
			_, err = w.assign(0, false, "10.10.1.70")
			if mode == vpc.AssignOwnedError {
				wantError(t, err, "InvalidParameterValue", "[10.10.1.70] assigned, but move is not allowed.")
			} else {
				fatal(t, err)
			}
			_, err = w.assign(0, true, "10.10.1.70")
			fatal(t, err)
		})
	}
}

func TestAMixedBatchFollowsTheConfiguration(t *testing.T) {
	for mode, want := range map[string]int{vpc.MixedBatchAtomic: -1, vpc.MixedBatchPartial: 1} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, vpc.Config{MixedBatch: mode}, 2, "m5.2xlarge")
			_, err := w.assign(0, false, "10.10.1.70", "10.10.1.72")
			fatal(t, err)
			_, err = w.assign(1, false, "10.10.1.72", "10.10.1.71", "10.10.1.70")
			wantError(t, err, "InvalidParameterValue", "[10.10.1.72, 10.10.1.70] assigned, but move is not allowed.")
			if got := w.owner("10.10.1.71"); got != want {
				t.Errorf("the free address of the batch is on ENI %d, want %d", got, want)
			}
		})
	}
}

func TestTheInstanceTypeLimitsAddressesOfAnENI(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 1, "t3.medium") // 6 addresses
	_, err := w.assign(0, false, "10.10.1.70", "10.10.1.71", "10.10.1.72", "10.10.1.73", "10.10.1.74")
	fatal(t, err)
	_, err = w.assign(0, false, "10.10.1.75")
	wantError(t, err, "PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
	_, err = w.AssignPrivateIPAddresses(t0, vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: w.enis[0].ID, PrefixCount: 1})
	wantError(t, err, "PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
	fatal(t, w.unassign(0, "10.10.1.70"))
	got, err := w.AssignPrivateIPAddresses(t0, vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: w.enis[0].ID, PrefixCount: 1})
	fatal(t, err)
	if len(got.Prefixes) != 1 || got.Prefixes[0].Bits() != 28 || got.Prefixes[0].Overlaps(prefix("10.10.1.64/26")) {
		t.Errorf("delegated %v", got.Prefixes)
	}
}

func TestUnassignRefusesWhatIsNotThere(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 2, "m5.2xlarge")
	_, err := w.assign(0, false, "10.10.1.70", "10.10.1.71")
	fatal(t, err)
	missing := "Some of the specified addresses are not assigned to interface " + w.enis[0].ID
	wantError(t, w.unassign(0, "10.10.1.70", "10.10.1.72"), "InvalidParameterValue", missing)
	if w.owner("10.10.1.70") != 0 {
		t.Error("a refused unassignment took an address away")
	}
	wantError(t, w.unassign(0, w.enis[0].Primary.String()), "InvalidParameterValue",
		"The primary IP address of an interface cannot be unassigned")
	fatal(t, w.unassign(0, "10.10.1.70", "10.10.1.70"))
	wantError(t, w.unassign(0, "10.10.1.70"), "InvalidParameterValue", missing)
}

func TestAFullSubnetHasNoAddressAndAFragmentedOneNoPrefix(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 1, "c5.18xlarge")
	small, err := w.AddSubnet(t0, vpc.SubnetSetup{VPCID: w.vpc.ID, AZ: "us-west-2a", IPv4: prefix("10.10.4.0/27")})
	fatal(t, err)
	// The first and the second half of a /27 both touch one of the five addresses.
	_, err = w.CreateNetworkInterface(t0, vpc.CreateNetworkInterfaceInput{
		SubnetID: small.ID, AddressRequest: vpc.AddressRequest{PrefixCount: 1},
	})
	wantError(t, err, "InsufficientCidrBlocks", "The specified subnet does not have enough free cidr blocks to satisfy the request.")
	e, err := w.CreateNetworkInterface(t0, vpc.CreateNetworkInterfaceInput{
		SubnetID: small.ID, AddressRequest: vpc.AddressRequest{SecondaryCount: 25},
	})
	fatal(t, err)
	in := vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: e.ID, Count: 2}
	_, err = w.AssignPrivateIPAddresses(t0, in)
	wantError(t, err, "InsufficientFreeAddressesInSubnet",
		"The specified subnet does not have enough free addresses to satisfy the request.")
	in.Count = 1
	_, err = w.AssignPrivateIPAddresses(t0, in)
	fatal(t, err)
}

func TestPrefixesComeFromPrefixReservationsFirst(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 1, "m5.2xlarge")
	_, err := w.CreateSubnetCIDRReservation(t0, vpc.CreateSubnetCIDRReservationInput{
		SubnetID: w.multus.ID, CIDR: prefix("10.10.1.192/27"), Type: vpc.ReservationPrefix,
	})
	fatal(t, err)
	got, err := w.AssignPrivateIPAddresses(t0, vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: w.enis[0].ID, PrefixCount: 3})
	fatal(t, err)
	inside := 0
	for _, p := range got.Prefixes {
		if p.Overlaps(prefix("10.10.1.192/27")) {
			inside++
		}
		if p.Overlaps(prefix("10.10.1.64/26")) {
			t.Errorf("%s lies in the explicit reservation", p)
		}
	}
	if inside != 2 {
		t.Errorf("%d of %v lie in the prefix reservation, want 2", inside, got.Prefixes)
	}
	// An address inside a delegated prefix is taken, and not movable.
	a := got.Prefixes[0].Addr().Next()
	_, err = w.AssignPrivateIPAddresses(t0, vpc.AssignPrivateIPAddressesInput{
		NetworkInterfaceID: w.enis[0].ID, Addresses: []netip.Addr{a}, AllowReassignment: true,
	})
	wantError(t, err, "InvalidParameterValue", "["+a.String()+"] assigned, but move is not allowed.")
}

func TestIPv6HasNoReassignment(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 2, "m5.2xlarge")
	a := addrs("2001:db8:10:1::70")
	_, err := w.AssignIPv6Addresses(t0, vpc.AssignIPv6AddressesInput{NetworkInterfaceID: w.enis[0].ID, Addresses: a})
	fatal(t, err)
	_, err = w.AssignIPv6Addresses(t0, vpc.AssignIPv6AddressesInput{NetworkInterfaceID: w.enis[1].ID, Addresses: a})
	wantError(t, err, "InvalidParameterValue", "[2001:db8:10:1::70] assigned, but move is not allowed.")
	_, err = w.AssignIPv6Addresses(t0, vpc.AssignIPv6AddressesInput{NetworkInterfaceID: w.enis[1].ID, Addresses: a, Count: 1})
	wantError(t, err, "InvalidParameterCombination", "IPv6 addresses and IPv6 address count may not be specified on the same request")
	out, err := w.UnassignIPv6Addresses(t0, vpc.UnassignInput{NetworkInterfaceID: w.enis[0].ID, Addresses: a})
	fatal(t, err)
	if diff := cmp.Diff(a, out.Addresses, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("unassigned (-want +got):\n%s", diff)
	}
	_, err = w.AssignIPv6Addresses(t0, vpc.AssignIPv6AddressesInput{NetworkInterfaceID: w.enis[1].ID, Addresses: a})
	fatal(t, err)
	got, err := w.AssignIPv6Addresses(t0, vpc.AssignIPv6AddressesInput{NetworkInterfaceID: w.enis[1].ID, PrefixCount: 2})
	fatal(t, err)
	if len(got.Prefixes) != 2 || got.Prefixes[0].Bits() != 80 {
		t.Errorf("delegated %v", got.Prefixes)
	}
	_, err = w.AssignIPv6Addresses(t0, vpc.AssignIPv6AddressesInput{NetworkInterfaceID: w.enis[1].ID, Count: 13})
	wantError(t, err, "PrivateIpAddressLimitExceeded", "Number of IPv6 addresses will exceed limit.")
}

func TestANewENICanBeNamedAfterTheDescribeLag(t *testing.T) {
	w := newWorld(t, vpc.Config{Propagation: vpc.Propagation{Describe: time.Second}}, 1, "m5.2xlarge")
	e, err := w.CreateNetworkInterface(t0, vpc.CreateNetworkInterfaceInput{SubnetID: w.multus.ID})
	fatal(t, err)
	in := vpc.AttachNetworkInterfaceInput{NetworkInterfaceID: e.ID, InstanceID: w.workers[0].ID, DeviceIndex: 2}
	_, err = w.AttachNetworkInterface(t0.Add(999*time.Millisecond), in)
	wantError(t, err, "InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '"+e.ID+"' does not exist")
	_, err = w.AttachNetworkInterface(t0.Add(time.Second), in)
	fatal(t, err)
}

func TestAttachKeepsTheLimitsOfCardsAndIndexes(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 1, "t3.medium")
	one, other := 1, 7
	multi, err := w.AddInstance(t0, vpc.InstanceSetup{Name: "multi", Type: "p5.48xlarge", ENIs: []vpc.ENISetup{
		{SubnetID: w.primary.ID}, {SubnetID: w.multus.ID, NetworkCard: 1},
	}})
	fatal(t, err)
	elsewhere, err := w.AddSubnet(t0, vpc.SubnetSetup{VPCID: w.vpc.ID, AZ: "us-west-2b", IPv4: prefix("10.10.5.0/24")})
	fatal(t, err)
	attach := func(subnet, instance string, index int, card *int) error {
		e, err := w.CreateNetworkInterface(t0, vpc.CreateNetworkInterfaceInput{SubnetID: subnet})
		fatal(t, err)
		_, err = w.AttachNetworkInterface(t0, vpc.AttachNetworkInterfaceInput{
			NetworkInterfaceID: e.ID, InstanceID: instance, DeviceIndex: index, NetworkCardIndex: card,
		})
		return err
	}
	worker := w.workers[0].ID
	taken := func(id string) string {
		return "Instance '" + id + "' already has an interface attached at device index '1'."
	}
	wantError(t, attach(w.multus.ID, worker, 1, nil), "InvalidParameterValue", taken(worker))
	wantError(t, attach(elsewhere.ID, worker, 2, nil), "InvalidParameterCombination",
		"You may not attach a network interface to an instance if they are not in the same availability zone")
	wantError(t, attach(w.multus.ID, worker, 2, &one), "InvalidParameterValue",
		"Network card index 1 is not valid for instance type t3.medium.")
	fatal(t, attach(w.multus.ID, worker, 2, nil))
	wantError(t, attach(w.multus.ID, worker, 3, nil), "AttachmentLimitExceeded", "Interface count 4 exceeds the limit for t3.medium")

	// Index 1 of card 0 is free, but not for a request that leaves the card out.
	wantError(t, attach(w.multus.ID, multi.ID, 1, nil), "InvalidParameterValue", taken(multi.ID))
	zero := 0
	fatal(t, attach(w.multus.ID, multi.ID, 1, &zero))
	wantError(t, attach(w.multus.ID, multi.ID, 2, &zero), "AttachmentLimitExceeded", "Interface count 4 exceeds the limit for p5.48xlarge")
	fatal(t, attach(w.multus.ID, multi.ID, 1, &other))
}

// TestAnInstanceBootsBeforeENIsAreAttached: and is shown as pending until then.
func TestAnInstanceBootsBeforeENIsAreAttached(t *testing.T) {
	w := newWorld(t, vpc.Config{Boot: 20 * time.Second}, 1, "m5.2xlarge")
	out, err := w.RunInstances(t0, vpc.RunInstancesInput{ImageID: "ami-1", InstanceType: "m5.2xlarge", MinCount: 1, MaxCount: 1, SubnetID: w.multus.ID})
	fatal(t, err)
	id := out.Instances[0].ID
	e, err := w.CreateNetworkInterface(t0, vpc.CreateNetworkInterfaceInput{SubnetID: w.multus.ID})
	fatal(t, err)
	for after, want := range map[time.Duration]string{0: vpc.StatePending, 19 * time.Second: vpc.StatePending, 20 * time.Second: vpc.StateRunning} {
		if i, _ := w.View(t0.Add(after)).Instance(id); i.State != want {
			t.Errorf("after %v it is %s", after, i.State)
		}
	}
	attach := func(after time.Duration) error {
		_, err := w.AttachNetworkInterface(t0.Add(after), vpc.AttachNetworkInterfaceInput{NetworkInterfaceID: e.ID, InstanceID: id, DeviceIndex: 1})
		return err
	}
	wantError(t, attach(19*time.Second), "IncorrectState", "The instance '"+id+"' is not in a valid state for this operation.")
	fatal(t, attach(20*time.Second))
}

func TestAnENIIsDetachedAndDeletedInThatOrder(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 1, "m5.2xlarge")
	e := w.enis[0]
	wantError(t, w.DeleteNetworkInterface(t0, e.ID), "InvalidParameterValue", "Network interface '"+e.ID+"' is currently in use.")
	wantError(t, w.DetachNetworkInterface(t0, "eni-attach-1"), "InvalidAttachmentID.NotFound", "The attachment ID 'eni-attach-1' does not exist")
	primary := w.View(t0).ENIs(w.workers[0].ID)[0]
	wantError(t, w.DetachNetworkInterface(t0, primary.Attachment.ID), "OperationNotPermitted",
		"The network interface at device index 0 cannot be detached.")
	fatal(t, w.DetachNetworkInterface(t0, e.Attachment.ID))
	if w.owner(e.Primary.String()) != 0 {
		t.Error("a detached ENI lost its address")
	}
	fatal(t, w.DeleteNetworkInterface(t0, e.ID))
	wantError(t, w.DeleteNetworkInterface(t0, e.ID), "InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '"+e.ID+"' does not exist")
	if w.owner(e.Primary.String()) != -1 {
		t.Error("a deleted ENI still has its address")
	}
}

func TestTerminationFreesTheAddressesOfENIsThatGoWithIt(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 2, "m5.2xlarge")
	_, err := w.assign(0, false, "10.10.1.70")
	fatal(t, err)
	keep := false
	fatal(t, w.ModifyNetworkInterfaceAttribute(t0, vpc.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceID: w.enis[1].ID, AttachmentID: w.enis[1].Attachment.ID, DeleteOnTermination: &keep,
	}))
	_, err = w.assign(1, false, "10.10.1.71")
	fatal(t, err)
	_, err = w.TerminateInstances(t0, []string{w.workers[0].ID, "i-0", w.workers[1].ID, "i-1"})
	wantError(t, err, "InvalidInstanceID.NotFound", "The instance IDs 'i-0, i-1' do not exist")
	changes, err := w.TerminateInstances(t0, []string{w.workers[0].ID, w.workers[1].ID})
	fatal(t, err)
	if len(changes) != 2 || changes[0].Previous != vpc.StateRunning || changes[0].Current != vpc.StateShuttingDown {
		t.Errorf("changes %+v", changes)
	}
	if w.owner("10.10.1.70") != -1 || w.owner("10.10.1.71") != 1 {
		t.Errorf("owners after termination: %d and %d, want none and ENI 1", w.owner("10.10.1.70"), w.owner("10.10.1.71"))
	}
	if e, ok := w.View(t0).ENI(w.enis[1].ID); !ok || e.Attachment != nil {
		t.Errorf("the ENI that stays is %+v", e)
	}
	if i, ok := w.View(t0).Instance(w.workers[0].ID); !ok || i.State != vpc.StateTerminated {
		t.Errorf("the terminated instance is %+v", i)
	}
	if _, ok := w.View(t0.Add(61 * time.Minute)).Instance(w.workers[0].ID); ok {
		t.Error("a terminated instance is still visible after an hour")
	}
	_, err = w.TerminateInstances(t0, []string{w.workers[0].ID})
	fatal(t, err)
}

func TestAClientTokenMakesACallHappenOnce(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 0, "")
	in := vpc.CreateNetworkInterfaceInput{SubnetID: w.multus.ID, ClientToken: "once"}
	a, err := w.CreateNetworkInterface(t0, in)
	fatal(t, err)
	b, err := w.CreateNetworkInterface(t0.Add(time.Minute), in)
	fatal(t, err)
	if a.ID != b.ID || len(w.View(t0).AllENIs()) != 1 {
		t.Errorf("two ENIs for one token: %s, %s", a.ID, b.ID)
	}
	in.Description = "other"
	_, err = w.CreateNetworkInterface(t0, in)
	var e *vpc.APIError
	if !errors.As(err, &e) || e.Code != "IdempotentParameterMismatch" {
		t.Errorf("got %v", err)
	}
}

func TestReservationsLieInTheSubnetAndDoNotOverlap(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 0, "")
	for _, c := range []struct{ name, cidr, kind, message string }{
		{"overlap", "10.10.1.96/28", "explicit", "Reservation CIDR 10.10.1.96/28 has overlap with existing reserved CIDR block"},
		{"outside", "10.10.2.0/28", "explicit", "Reservation CIDR 10.10.2.0/28 is not within the subnet's CIDR block"},
		{"type", "10.10.1.128/28", "static", "Invalid value 'static' for reservationType."},
		{"host bits", "10.10.1.129/28", "prefix", "Value (10.10.1.129/28) for parameter cidr is invalid. This is not a valid CIDR block."},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.CreateSubnetCIDRReservation(t0, vpc.CreateSubnetCIDRReservationInput{
				SubnetID: w.multus.ID, CIDR: prefix(c.cidr), Type: c.kind,
			})
			wantError(t, err, "InvalidParameterValue", c.message)
		})
	}
	r, err := w.CreateSubnetCIDRReservation(t0, vpc.CreateSubnetCIDRReservationInput{
		SubnetID: w.multus.ID, CIDR: prefix("10.10.1.128/28"), Type: vpc.ReservationPrefix,
	})
	fatal(t, err)
	_, err = w.DeleteSubnetCIDRReservation(t0, r.ID)
	fatal(t, err)
	_, err = w.DeleteSubnetCIDRReservation(t0, r.ID)
	wantError(t, err, "InvalidSubnetCidrReservationID.NotFound", "The subnet CIDR reservation ID '"+r.ID+"' does not exist")
}

func TestTheTableOfInstanceTypesIsSortedAndSane(t *testing.T) {
	all := vpc.InstanceTypes()
	if len(all) < 20 {
		t.Errorf("only %d types", len(all))
	}
	for _, want := range all {
		got, ok := vpc.LookupInstanceType(want.Name)
		if !ok || got != want {
			t.Errorf("%s is not found: the table is not sorted there", want.Name)
		}
		if want.NetworkCards < 1 || want.InterfacesPerCard < 1 || want.IPv4PerInterface < 2 {
			t.Errorf("%+v cannot be", want)
		}
	}
	for name, want := range map[string][2]int{
		"t3.medium": {3, 6}, "m5.large": {3, 10}, "m5.2xlarge": {4, 15}, "c5.2xlarge": {4, 15}, "c5.18xlarge": {15, 50},
		"p4d.24xlarge": {60, 50}, "p5.48xlarge": {64, 50}, "c6in.32xlarge": {16, 50}, "hpc7a.96xlarge": {4, 50},
	} {
		got, _ := vpc.LookupInstanceType(name)
		if got.Interfaces() != want[0] || got.IPv4PerInterface != want[1] {
			t.Errorf("%s has %d × %d, want %v", name, got.Interfaces(), got.IPv4PerInterface, want)
		}
	}
}
