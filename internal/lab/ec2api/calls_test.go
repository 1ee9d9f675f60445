// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

func TestAnENILivesFromCreationToDeletion(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	group := must(l.AddSecurityGroup(time.Time{}, vpc.SecurityGroupSetup{VPCID: l.multus.VPCID, Name: "pods"}))(t)
	out := must(l.client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{
		SubnetId: &l.multus.ID, Description: aws.String("pods"), Groups: []string{group.ID},
		PrivateIpAddresses: []types.PrivateIpAddressSpecification{
			{PrivateIpAddress: aws.String("10.10.1.20"), Primary: aws.Bool(true)},
			{PrivateIpAddress: aws.String("10.10.1.70")},
		},
		Ipv6AddressCount: aws.Int32(1), Ipv4PrefixCount: aws.Int32(1),
		TagSpecifications: []types.TagSpecification{{
			ResourceType: "network-interface",
			Tags:         []types.Tag{{Key: aws.String("node.k8s.amazonaws.com/no_manage"), Value: aws.String("true")}},
		}},
	}))(t)
	n := out.NetworkInterface
	if *n.PrivateIpAddress != "10.10.1.20" || len(n.PrivateIpAddresses) != 2 || len(n.Ipv6Addresses) != 1 || len(n.Ipv4Prefixes) != 1 {
		t.Errorf("created %+v", n)
	}
	if got := tagsOf(n.TagSet); got["node.k8s.amazonaws.com/no_manage"] != "true" || *n.Groups[0].GroupId != group.ID {
		t.Errorf("tags %v, groups %+v", got, n.Groups)
	}
	id := n.NetworkInterfaceId
	a := must(l.client.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{
		NetworkInterfaceId: id, InstanceId: &l.workers[0].ID, DeviceIndex: aws.Int32(2), NetworkCardIndex: aws.Int32(0),
	}))(t)
	must(l.client.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: id,
		Attachment:         &types.NetworkInterfaceAttachmentChanges{AttachmentId: a.AttachmentId, DeleteOnTermination: aws.Bool(true)},
	}))(t)
	must(l.client.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: id, SourceDestCheck: &types.AttributeBooleanValue{Value: aws.Bool(false)},
	}))(t)
	shown := must(l.client.DescribeNetworkInterfaceAttribute(ctx, &ec2.DescribeNetworkInterfaceAttributeInput{
		NetworkInterfaceId: id, Attribute: "attachment",
	}))(t)
	if !*shown.Attachment.DeleteOnTermination || *shown.Attachment.DeviceIndex != 2 {
		t.Errorf("attachment %+v", shown.Attachment)
	}
	check := must(l.client.DescribeNetworkInterfaceAttribute(ctx, &ec2.DescribeNetworkInterfaceAttributeInput{
		NetworkInterfaceId: id, Attribute: "sourceDestCheck",
	}))(t)
	if *check.SourceDestCheck.Value {
		t.Error("the source/destination check is still on")
	}
	_, err := l.client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: id})
	wantError(t, err, "InvalidParameterValue", fmt.Sprintf("Network interface '%s' is currently in use.", *id))
	must(l.client.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: a.AttachmentId, Force: aws.Bool(true)}))(t)
	must(l.client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: id}))(t)
}

func TestInstancesAreRunDescribedAndTerminated(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	run := must(l.client.RunInstances(ctx, &ec2.RunInstancesInput{
		ImageId: aws.String("ami-1"), InstanceType: "c6in.32xlarge", MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{
			{DeviceIndex: aws.Int32(0), SubnetId: &l.primary.ID},
			{DeviceIndex: aws.Int32(1), NetworkCardIndex: aws.Int32(1), SubnetId: &l.multus.ID, PrivateIpAddress: aws.String("10.10.1.90")},
		},
		TagSpecifications: []types.TagSpecification{
			{ResourceType: "instance", Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("worker-9")}}},
			{ResourceType: "network-interface", Tags: []types.Tag{{Key: aws.String("cluster"), Value: aws.String("lab")}}},
		},
	}))(t)
	i := run.Instances[0]
	if i.State.Name != types.InstanceStateNamePending || len(i.NetworkInterfaces) != 2 {
		t.Fatalf("launched %+v", i)
	}
	shown := must(l.client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: []types.Filter{
		{Name: aws.String("tag:Name"), Values: []string{"worker-*"}},
		{Name: aws.String("instance-state-name"), Values: []string{"running"}},
		{Name: aws.String("network-interface.addresses.private-ip-address"), Values: []string{"10.10.1.90"}},
	}}))(t)
	if len(shown.Reservations) != 1 || *shown.Reservations[0].Instances[0].InstanceId != *i.InstanceId {
		t.Fatalf("described %+v", shown.Reservations)
	}
	got := shown.Reservations[0].Instances[0]
	if *got.NetworkInterfaces[1].Attachment.NetworkCardIndex != 1 || got.InstanceType != "c6in.32xlarge" ||
		*got.Placement.AvailabilityZone != "us-west-2a" || *got.SubnetId != l.primary.ID {
		t.Errorf("described %+v", got)
	}
	ended := must(l.client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*i.InstanceId}}))(t)
	if s := ended.TerminatingInstances[0]; s.PreviousState.Name != "running" || s.CurrentState.Name != "shutting-down" {
		t.Errorf("terminated: %+v", s)
	}
	if _, held := l.View(l.now).Routes()[netip.MustParseAddr("10.10.1.90")]; held {
		t.Error("a terminated instance's address is still routed")
	}
}

func TestInstanceTypesShowTheirCards(t *testing.T) {
	l := newLab(t, vpc.Config{})
	out := must(l.client.DescribeInstanceTypes(t.Context(), &ec2.DescribeInstanceTypesInput{
		InstanceTypes: []types.InstanceType{"p5.48xlarge", "c5.2xlarge"},
	}))(t)
	got := map[types.InstanceType][4]int32{}
	for _, ty := range out.InstanceTypes {
		n := ty.NetworkInfo
		got[ty.InstanceType] = [4]int32{
			*n.MaximumNetworkInterfaces, *n.Ipv4AddressesPerInterface, *n.MaximumNetworkCards, *n.NetworkCards[0].MaximumNetworkInterfaces,
		}
	}
	want := map[types.InstanceType][4]int32{"p5.48xlarge": {64, 50, 32, 2}, "c5.2xlarge": {4, 15, 1, 4}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ENIs, addresses, cards, ENIs per card (-want +got):\n%s", diff)
	}
}

func TestSubnetsAndReservationsAreShownByFamily(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	must(l.client.CreateSubnetCidrReservation(ctx, &ec2.CreateSubnetCidrReservationInput{
		SubnetId: &l.multus.ID, Cidr: aws.String("2001:db8:10:1:1::/80"), ReservationType: "prefix",
	}))(t)
	subnets := must(l.client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{
		{Name: aws.String("tag:multus"), Values: []string{"1"}},
		{Name: aws.String("vpc-id"), Values: []string{l.vpc.ID}},
	}}))(t)
	if len(subnets.Subnets) != 1 || *subnets.Subnets[0].CidrBlock != "10.10.1.0/24" ||
		*subnets.Subnets[0].Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock != "2001:db8:10:1::/64" {
		t.Fatalf("subnets %+v", subnets.Subnets)
	}
	// 256 addresses, without the five and the two workers'.
	if got := *subnets.Subnets[0].AvailableIpAddressCount; got != 249 {
		t.Errorf("%d addresses are available, want 249", got)
	}
	r := must(l.client.GetSubnetCidrReservations(ctx, &ec2.GetSubnetCidrReservationsInput{SubnetId: &l.multus.ID}))(t)
	if len(r.SubnetIpv4CidrReservations) != 1 || len(r.SubnetIpv6CidrReservations) != 1 {
		t.Fatalf("reservations %+v", r)
	}
	v4 := r.SubnetIpv4CidrReservations[0]
	if *v4.Cidr != "10.10.1.64/26" || v4.ReservationType != "explicit" || tagsOf(v4.Tags)["multus-vpc.io/role"] != "pool" {
		t.Errorf("reservation %+v", v4)
	}
	gone := must(l.client.DeleteSubnetCidrReservation(ctx, &ec2.DeleteSubnetCidrReservationInput{
		SubnetCidrReservationId: v4.SubnetCidrReservationId,
	}))(t)
	if *gone.DeletedSubnetCidrReservation.Cidr != "10.10.1.64/26" {
		t.Errorf("deleted %+v", gone.DeletedSubnetCidrReservation)
	}
	vpcs := must(l.client.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{l.vpc.ID}}))(t)
	if *vpcs.Vpcs[0].CidrBlock != "10.10.0.0/16" || *vpcs.Vpcs[0].CidrBlockAssociationSet[0].CidrBlock != "10.10.0.0/16" {
		t.Errorf("VPC %+v", vpcs.Vpcs[0])
	}
}

func TestTagsAreCreatedFoundAndDeleted(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	ids := []string{l.enis[0].ID, l.workers[0].ID, l.multus.ID, l.vpc.ID, l.reservation.ID}
	must(l.client.CreateTags(ctx, &ec2.CreateTagsInput{
		Resources: ids, Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("core")}, {Key: aws.String("empty"), Value: aws.String("")}},
	}))(t)
	find := func(filters ...types.Filter) []string {
		out := must(l.client.DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: filters}))(t)
		var found []string
		for _, tag := range out.Tags {
			found = append(found, *tag.ResourceId)
		}
		slices.Sort(found)
		return found
	}
	slices.Sort(ids)
	if diff := cmp.Diff(ids, find(types.Filter{Name: aws.String("tag:team"), Values: []string{"core"}})); diff != "" {
		t.Errorf("tagged (-want +got):\n%s", diff)
	}
	must(l.client.DeleteTags(ctx, &ec2.DeleteTagsInput{
		Resources: []string{l.enis[0].ID, l.workers[0].ID},
		Tags:      []types.Tag{{Key: aws.String("team"), Value: aws.String("other")}, {Key: aws.String("empty")}},
	}))(t)
	if got := find(types.Filter{Name: aws.String("key"), Values: []string{"team"}}); len(got) != 5 {
		t.Errorf("a tag with another value was deleted: left on %v", got)
	}
	if got := find(types.Filter{Name: aws.String("key"), Values: []string{"empty"}}); len(got) != 3 {
		t.Errorf("the empty tag is left on %v", got)
	}
	_, err := l.client.CreateTags(ctx, &ec2.CreateTagsInput{
		Resources: []string{l.vpc.ID, "eni-0"}, Tags: []types.Tag{{Key: aws.String("half"), Value: aws.String("")}},
	})
	wantError(t, err, "InvalidNetworkInterfaceID.NotFound", "")
	if got := find(types.Filter{Name: aws.String("key"), Values: []string{"half"}}); len(got) != 0 {
		t.Errorf("a refused call tagged %v", got)
	}
}

func TestPagesAreWholeWhileObjectsComeAndGo(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	want := map[string]bool{}
	for range 23 {
		e := must(l.client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &l.otherZone.ID}))(t)
		want[*e.NetworkInterface.NetworkInterfaceId] = true
	}
	in := &ec2.DescribeNetworkInterfacesInput{
		MaxResults: aws.Int32(5), Filters: []types.Filter{{Name: aws.String("subnet-id"), Values: []string{l.otherZone.ID}}},
	}
	got := map[string]bool{}
	for pages := ec2.NewDescribeNetworkInterfacesPaginator(l.client, in); pages.HasMorePages(); {
		page := must(pages.NextPage(ctx))(t)
		for _, n := range page.NetworkInterfaces {
			if got[*n.NetworkInterfaceId] {
				t.Errorf("%s is on two pages", *n.NetworkInterfaceId)
			}
			got[*n.NetworkInterfaceId] = true
		}
		// What was shown may go, and something new may come, between pages.
		must(l.client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{
			NetworkInterfaceId: page.NetworkInterfaces[0].NetworkInterfaceId,
		}))(t)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("ENIs on the pages (-want +got):\n%s", diff)
	}
	_, err := l.client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{MaxResults: aws.Int32(4)})
	wantError(t, err, "InvalidParameterValue", "Value ( 4 ) for parameter maxResults is invalid. Expecting a value greater than 5.")
	_, err = l.client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{
		MaxResults: aws.Int32(5), NetworkInterfaceIds: []string{l.enis[0].ID},
	})
	wantError(t, err, "InvalidParameterCombination", "")
	_, err = l.client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NextToken: aws.String("%%%")})
	wantError(t, err, "InvalidParameterValue", "Unable to parse pagination token")
}

// Whoever reads one page of reservations loses the rest: there is no paginator for them in the SDK.
func TestReservationsComeInPagesWithoutBeingAsked(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	for i := range 300 {
		must(l.client.CreateSubnetCidrReservation(ctx, &ec2.CreateSubnetCidrReservationInput{
			SubnetId: &l.multus.ID, Cidr: aws.String(fmt.Sprintf("2001:db8:10:1::%x/128", 0x100+i)), ReservationType: "explicit",
		}))(t)
	}
	first := must(l.client.GetSubnetCidrReservations(ctx, &ec2.GetSubnetCidrReservationsInput{SubnetId: &l.multus.ID}))(t)
	if first.NextToken == nil {
		t.Fatal("301 reservations came on one page")
	}
	rest := must(l.client.GetSubnetCidrReservations(ctx, &ec2.GetSubnetCidrReservationsInput{
		SubnetId: &l.multus.ID, NextToken: first.NextToken,
	}))(t)
	n := len(first.SubnetIpv4CidrReservations) + len(first.SubnetIpv6CidrReservations) +
		len(rest.SubnetIpv4CidrReservations) + len(rest.SubnetIpv6CidrReservations)
	if n != 301 || rest.NextToken != nil {
		t.Errorf("%d reservations on two pages, want 301", n)
	}
}

func TestIPv6AddressesAndPrefixesPassThrough(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	out := must(l.client.AssignIpv6Addresses(ctx, &ec2.AssignIpv6AddressesInput{
		NetworkInterfaceId: &l.enis[0].ID, Ipv6Addresses: []string{"2001:db8:10:1::70"},
	}))(t)
	if len(out.AssignedIpv6Addresses) != 1 || out.AssignedIpv6Addresses[0] != "2001:db8:10:1::70" {
		t.Errorf("assigned %v", out.AssignedIpv6Addresses)
	}
	p := must(l.client.AssignIpv6Addresses(ctx, &ec2.AssignIpv6AddressesInput{
		NetworkInterfaceId: &l.enis[0].ID, Ipv6PrefixCount: aws.Int32(1),
	}))(t)
	found := must(l.client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: []types.Filter{
		{Name: aws.String("ipv6-addresses.ipv6-address"), Values: []string{"2001:db8:10:1::70"}},
	}}))(t)
	if n := found.NetworkInterfaces; len(n) != 1 || *n[0].Ipv6Addresses[0].Ipv6Address != "2001:db8:10:1::70" ||
		*n[0].Ipv6Prefixes[0].Ipv6Prefix != p.AssignedIpv6Prefixes[0] {
		t.Errorf("described %+v", n)
	}
	gone := must(l.client.UnassignIpv6Addresses(ctx, &ec2.UnassignIpv6AddressesInput{
		NetworkInterfaceId: &l.enis[0].ID, Ipv6Addresses: []string{"2001:db8:10:1::70"}, Ipv6Prefixes: p.AssignedIpv6Prefixes,
	}))(t)
	if len(gone.UnassignedIpv6Addresses) != 1 || len(gone.UnassignedIpv6Prefixes) != 1 {
		t.Errorf("unassigned %+v", gone)
	}
	v4 := must(l.client.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
		NetworkInterfaceId: &l.enis[0].ID, Ipv4Prefixes: []string{"10.10.1.64/28"},
	}))(t)
	if len(v4.AssignedIpv4Prefixes) != 1 || *v4.AssignedIpv4Prefixes[0].Ipv4Prefix != "10.10.1.64/28" {
		t.Errorf("delegated %+v", v4)
	}
	must(l.client.UnassignPrivateIpAddresses(ctx, &ec2.UnassignPrivateIpAddressesInput{
		NetworkInterfaceId: &l.enis[0].ID, Ipv4Prefixes: []string{"10.10.1.64/28"},
	}))(t)
}
