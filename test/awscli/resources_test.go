// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package awscli

import "testing"

func reading(t *testing.T, l *lab) {
	l.pair("InvalidAction", "The action DescribeSpotPriceHistory is not valid for this web service.",
		"{describe-spot-price-history|describe-vpcs} --max-items 5")
	l.pair("DryRunOperation", "", "describe-vpcs {--dry-run|--no-dry-run}").
		expect(t, map[string]string{"Vpcs.0.CidrBlock": `"10.10.0.0/16"`})
	l.pair("InvalidParameterValue", "The filter 'no-such-filter' is invalid", "describe-subnets --filters Name={no-such-filter|cidr-block},Values=10.10.1.0/24").
		expect(t, map[string]string{
			"Subnets.0.AvailabilityZone": `"us-west-2a"`,
			"Subnets.0.CidrBlock":        `"10.10.1.0/24"`,
			"Subnets.1":                  `null`,
		})
	l.pair("InvalidInstanceID.NotFound", "The instance ID 'i-0ffffffffffffffff' does not exist",
		"describe-instances --instance-ids {i-0ffffffffffffffff|"+l.IDs["worker-1"]+"}").
		expect(t, map[string]string{
			"Reservations.0.Instances.0.InstanceType":               `"m5.2xlarge"`,
			"Reservations.0.Instances.0.State.Name":                 `"running"`,
			"Reservations.0.Instances.0.Placement.AvailabilityZone": `"us-west-2a"`,
			"Reservations.0.Instances.0.NetworkInterfaces.3":        `null`,
			"Reservations.0.Instances.0.NetworkInterfaces.2.VpcId":  `"` + l.accept("describe-vpcs").text(t, "Vpcs.0.VpcId") + `"`,
		})
	l.pair("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-0ffffffffffffffff' does not exist",
		"describe-network-interfaces --network-interface-ids {eni-0ffffffffffffffff|"+l.eni("worker-1", 1)+"}").
		expect(t, map[string]string{"NetworkInterfaces.0.PrivateIpAddress": `"10.10.1.20"`})
	l.pair("InvalidSubnetID.NotFound", "The subnet ID 'subnet-0ffffffffffffffff' does not exist",
		"describe-subnets --subnet-ids {subnet-0ffffffffffffffff|"+l.subnet("tiny")+"}")
	l.pair("InvalidInstanceType", "", "describe-instance-types --instance-types {m5.huge|p4d.24xlarge}").
		expect(t, map[string]string{
			"InstanceTypes.0.NetworkInfo.MaximumNetworkCards":       "4",
			"InstanceTypes.0.NetworkInfo.MaximumNetworkInterfaces":  "60",
			"InstanceTypes.0.NetworkInfo.Ipv4AddressesPerInterface": "50",
		})
	l.accept("describe-tags --filters Name=resource-id,Values="+l.eni("worker-1", 1)).
		expect(t, map[string]string{"Tags.0.Key": `"node.k8s.amazonaws.com/no_manage"`, "Tags.0.Value": `"true"`})
	// Pages are put together by the CLI: 8 ENIs in pages of 5.
	l.accept("describe-network-interfaces --page-size 5").expect(t, map[string]string{"NetworkInterfaces.8": "null"})
}

func creatingInterfaces(t *testing.T, l *lab) {
	subnet := l.subnet("multus-1")
	create := "create-network-interface --subnet-id " + subnet + " --private-ip-address "
	l.pair("InvalidIPAddress.InUse", "The specified address is already in use.", create+"{10.10.1.22|10.10.1.30}").
		expect(t, map[string]string{"NetworkInterface.PrivateIpAddress": `"10.10.1.30"`, "NetworkInterface.SubnetId": `"` + subnet + `"`})
	l.pair("InvalidParameterValue", "Address 10.10.1.1 is in subnet's reserved address range", create+"{10.10.1.1|10.10.1.31}")
	l.pair("InvalidParameterValue", "Address does not fall within the subnet's address range", create+"{10.10.2.1|10.10.1.32}")
	l.pair("InvalidParameterValue", "invalid value for parameter address: 10.10.1.x", create+"{10.10.1.x|10.10.1.33}")
	l.pair("InvalidSubnetID.NotFound", "The subnet ID 'subnet-0ffffffffffffffff' does not exist",
		"create-network-interface --subnet-id {subnet-0ffffffffffffffff|"+subnet+"}")
	l.pair("DryRunOperation", "", "create-network-interface --subnet-id "+subnet+" {--dry-run|--no-dry-run}")

	made := l.accept(create + "10.10.1.34 --tag-specifications ResourceType=network-interface,Tags=[{Key=a,Value=b}] --client-token once")
	eni := made.text(t, "NetworkInterface.NetworkInterfaceId")
	made.expect(t, map[string]string{"NetworkInterface.TagSet": `[{"Key":"a","Value":"b"}]`})
	l.accept(create+"10.10.1.34 --tag-specifications ResourceType=network-interface,Tags=[{Key=a,Value=b}] --client-token once").
		expect(t, map[string]string{"NetworkInterface.NetworkInterfaceId": `"` + eni + `"`})

	l.pair("InvalidParameterValue", "Network interface '"+l.eni("worker-1", 1)+"' is currently in use.",
		"delete-network-interface --network-interface-id {"+l.eni("worker-1", 1)+"|"+eni+"}")
	l.refuse("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '"+eni+"' does not exist",
		"delete-network-interface --network-interface-id "+eni)
}

func attaching(t *testing.T, l *lab) {
	create := func(subnet string) string {
		return l.accept("create-network-interface --subnet-id "+l.subnet(subnet)).text(t, "NetworkInterface.NetworkInterfaceId")
	}
	here, second, third, elsewhere := create("multus-1"), create("multus-1"), create("multus-1"), create("other-zone")
	w1, w2, full := l.IDs["worker-1"], l.IDs["worker-2"], l.IDs["full"]

	attached := l.pair("InvalidParameterValue", "Instance '"+w1+"' already has an interface attached at device index '1'.",
		"attach-network-interface --network-interface-id "+here+" --instance-id "+w1+" --device-index {1|3}")
	l.pair("AttachmentLimitExceeded", "Interface count 4 exceeds the limit for m5.large",
		"attach-network-interface --network-interface-id "+second+" --device-index 3 --instance-id {"+full+"|"+w2+"}")
	l.pair("InvalidParameterCombination", "",
		"attach-network-interface --device-index 2 --instance-id "+w2+" --network-interface-id {"+elsewhere+"|"+third+"}")

	attachment := attached.text(t, "AttachmentId")
	l.pair("InvalidAttachmentID.NotFound", "", "modify-network-interface-attribute --network-interface-id "+here+
		" --attachment AttachmentId={eni-attach-0ffffffffffffffff|"+attachment+"},DeleteOnTermination=true")
	l.accept("modify-network-interface-attribute --no-source-dest-check --network-interface-id " + here)
	l.accept("describe-network-interfaces --filters Name=attachment.attachment-id,Values="+attachment).expect(t, map[string]string{
		"NetworkInterfaces.0.Attachment.DeleteOnTermination": "true",
		"NetworkInterfaces.0.SourceDestCheck":                "false",
		"NetworkInterfaces.0.Status":                         `"in-use"`,
	})
	l.pair("InvalidAttachmentID.NotFound", "", "detach-network-interface --attachment-id {eni-attach-0ffffffffffffffff|"+attachment+"}")
	l.accept("describe-network-interfaces --network-interface-ids "+here).expect(t, map[string]string{"NetworkInterfaces.0.Status": `"available"`})

	again := "attach-network-interface --device-index 3 --instance-id " + w1
	attached = l.pair("InvalidNetworkInterface.InUse", "", again+" --network-interface-id {"+second+"|"+here+"}")
	l.accept("detach-network-interface --attachment-id " + attached.text(t, "AttachmentId"))
	l.pair("InvalidParameterValue", "", again+" --network-interface-id "+here+" --network-card-index {1|0}") // m5.2xlarge has one card
}

func instances(t *testing.T, l *lab) {
	run := "run-instances --image-id ami-0123456789abcdef0 --count 1 --subnet-id " + l.subnet("multus-1")
	l.pair("InvalidParameterValue", "Address 10.10.1.2 is in subnet's reserved address range",
		run+" --instance-type m5.large --private-ip-address {10.10.1.2|10.10.1.40}")
	l.pair("InvalidIPAddress.InUse", "Address 10.10.1.22 is in use.", run+" --instance-type m5.large --private-ip-address {10.10.1.22|10.10.1.41}")
	l.pair("InvalidParameterValue", "", run+" --instance-type {m5.huge|m5.large}")
	l.pair("InvalidParameterCombination", "IPv6 addresses and IPv6 address count may not be specified on the same request",
		run+" --instance-type m5.large --ipv6-addresses Ipv6Address=2600:1f14:abc:de01::40 {--ipv6-address-count=1|}")
	made := l.accept(run + " --instance-type m5.large --private-ip-address 10.10.1.42")
	id := made.text(t, "Instances.0.InstanceId")
	l.pair("InvalidInstanceID.NotFound", "The instance ID 'i-0ffffffffffffffff' does not exist",
		"terminate-instances --instance-ids {i-0ffffffffffffffff|"+id+"}").
		expect(t, map[string]string{"TerminatingInstances.0.PreviousState.Name": `"running"`})
	// The ENI died with its instance, so the address is free.
	l.accept("create-network-interface --private-ip-address 10.10.1.42 --subnet-id " + l.subnet("multus-1"))
	eni := l.accept("create-network-interface --subnet-id "+l.subnet("multus-1")).text(t, "NetworkInterface.NetworkInterfaceId")
	l.pair("IncorrectState", "", "attach-network-interface --device-index 3 --network-interface-id "+eni+" --instance-id {"+id+"|"+l.IDs["worker-1"]+"}")
}

func reservations(t *testing.T, l *lab) {
	subnet := l.subnet("multus-1")
	create := "create-subnet-cidr-reservation --subnet-id " + subnet + " --reservation-type "
	l.pair("InvalidParameterValue", "Reservation CIDR 10.10.1.96/28 has overlap with existing reserved CIDR block",
		create+"explicit --cidr {10.10.1.96/28|10.10.1.128/26}").
		expect(t, map[string]string{"SubnetCidrReservation.Cidr": `"10.10.1.128/26"`, "SubnetCidrReservation.ReservationType": `"explicit"`})
	l.pair("InvalidParameterValue", "", create+"prefix --cidr {10.10.2.0/28|10.10.1.192/28}")
	list := l.pair("InvalidSubnetID.NotFound", "The subnet ID 'subnet-0ffffffffffffffff' does not exist",
		"get-subnet-cidr-reservations --subnet-id {subnet-0ffffffffffffffff|"+subnet+"}")
	list.expect(t, map[string]string{"SubnetIpv4CidrReservations.3": "null", "SubnetIpv6CidrReservations": "[]"})
	prefix := l.accept("get-subnet-cidr-reservations --filters Name=reservationType,Values=prefix --subnet-id " + subnet)
	prefix.expect(t, map[string]string{"SubnetIpv4CidrReservations.0.Cidr": `"10.10.1.192/28"`, "SubnetIpv4CidrReservations.1": "null"})
	// EC2 takes prefixes out of the reservation for them first.
	l.accept("assign-private-ip-addresses --ipv4-prefix-count 1 --network-interface-id "+l.eni("worker-1", 1)).
		expect(t, map[string]string{"AssignedIpv4Prefixes.0.Ipv4Prefix": `"10.10.1.192/28"`})
	l.pair("InvalidSubnetCidrReservationID.NotFound", "", "delete-subnet-cidr-reservation --subnet-cidr-reservation-id {scr-0ffffffffffffffff|"+
		prefix.text(t, "SubnetIpv4CidrReservations.0.SubnetCidrReservationId")+"}")
}

func tags(t *testing.T, l *lab) {
	eni := l.eni("worker-1", 1)
	l.pair("InvalidNetworkInterfaceID.NotFound", "", "create-tags --tags Key=a,Value=b --resources {eni-0ffffffffffffffff|"+eni+"}")
	l.accept("describe-network-interfaces --filters Name=tag:a,Values=b").
		expect(t, map[string]string{"NetworkInterfaces.0.NetworkInterfaceId": `"` + eni + `"`})
	l.accept("delete-tags --tags Key=a --resources " + eni)
	l.accept("describe-network-interfaces --filters Name=tag-key,Values=a").expect(t, map[string]string{"NetworkInterfaces": "[]"})
}
