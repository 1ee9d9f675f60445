// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package awscli

import "testing"

func namingAddresses(t *testing.T, l *lab) {
	eni, other := l.eni("worker-1", 1), l.eni("worker-2", 1)
	assign := "assign-private-ip-addresses --network-interface-id " + eni + " --private-ip-addresses "

	l.pair("InvalidParameterValue", "[10.10.1.22] assigned, but move is not allowed.", assign+"{10.10.1.22|10.10.1.70}").
		expect(t, map[string]string{
			"NetworkInterfaceId":                            `"` + eni + `"`,
			"AssignedPrivateIpAddresses.0.PrivateIpAddress": `"10.10.1.70"`,
			"AssignedPrivateIpAddresses.1":                  `null`,
		})
	l.pair("InvalidParameterValue", "[10.10.1.22] assigned, but move is not allowed.", assign+"10.10.1.71 {10.10.1.22|10.10.1.72}")
	l.pair("InvalidParameterValue", "Address does not fall within the subnet's address range", assign+"{10.10.2.5|10.10.1.73}")
	l.pair("InvalidParameterValue", "Address 10.10.1.3 is in subnet's reserved range.", assign+"{10.10.1.3|10.10.1.74}")
	l.pair("InvalidParameterValue", "invalid value for parameter address: 10.10.1", assign+"{10.10.1|10.10.1.75}")
	l.pair("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-0ffffffffffffffff' does not exist",
		"assign-private-ip-addresses --private-ip-addresses 10.10.1.76 --network-interface-id {eni-0ffffffffffffffff|"+eni+"}")

	// Moving: a secondary address of another ENI may be taken, its primary not (code only: the wording is not known).
	l.pair("InvalidParameterValue", "", assign+"{10.10.1.21|10.10.1.22} --allow-reassignment")
	held := l.accept("describe-network-interfaces --filters Name=addresses.private-ip-address,Values=10.10.1.22")
	held.expect(t, map[string]string{
		"NetworkInterfaces.0.NetworkInterfaceId": `"` + eni + `"`,
		"NetworkInterfaces.1":                    `null`,
	})
	l.accept("describe-network-interfaces --network-interface-ids "+other).expect(t, map[string]string{
		"NetworkInterfaces.0.PrivateIpAddresses.0.PrivateIpAddress": `"10.10.1.21"`,
		"NetworkInterfaces.0.PrivateIpAddresses.1":                  `null`,
	})
	l.accept(assign + "10.10.1.70") // which it has already

	// Codes that are documented for all actions.
	l.pair("InvalidParameterCombination", "", assign+"10.10.1.77 {--secondary-private-ip-address-count=1|}")
	l.pair("MissingParameter", "", "assign-private-ip-addresses --network-interface-id "+eni+" {|--secondary-private-ip-address-count=1}")
}

func assignOwnedError(_ *testing.T, l *lab) {
	eni := l.eni("worker-2", 1)
	l.pair("InvalidParameterValue", "[10.10.1.22] assigned, but move is not allowed.",
		"assign-private-ip-addresses --private-ip-addresses {10.10.1.22|10.10.1.23} --network-interface-id "+eni)
	l.accept("assign-private-ip-addresses --allow-reassignment --private-ip-addresses 10.10.1.22 --network-interface-id " + eni)
}

func mixedBatchPartial(t *testing.T, l *lab) {
	l.refuse("InvalidParameterValue", "[10.10.1.22] assigned, but move is not allowed.",
		"assign-private-ip-addresses --private-ip-addresses 10.10.1.70 10.10.1.22 --network-interface-id "+l.eni("worker-1", 1))
	l.accept("describe-network-interfaces --filters Name=addresses.private-ip-address,Values=10.10.1.70").
		expect(t, map[string]string{"NetworkInterfaces.0.NetworkInterfaceId": `"` + l.eni("worker-1", 1) + `"`})
}

func limits(t *testing.T, l *lab) {
	assign := "assign-private-ip-addresses --network-interface-id " + l.eni("worker-1", 1)
	// m5.2xlarge: 15 IPv4 addresses for an ENI, the primary included.
	l.pair("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.",
		assign+" --secondary-private-ip-address-count {15|13}").
		expect(t, map[string]string{"AssignedPrivateIpAddresses.13": "null"})
	l.pair("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.", assign+" --ipv4-prefix-count {2|1}")
}

func unassigning(_ *testing.T, l *lab) {
	eni := l.eni("worker-2", 1)
	unassign := "unassign-private-ip-addresses --network-interface-id " + eni + " --private-ip-addresses "
	l.accept("assign-private-ip-addresses --private-ip-addresses 10.10.1.23 --network-interface-id " + eni)
	l.pair("InvalidParameterValue", "Some of the specified addresses are not assigned to interface "+eni, unassign+"{10.10.1.99|10.10.1.22}")
	l.refuse("InvalidParameterValue", "Some of the specified addresses are not assigned to interface "+eni, unassign+"10.10.1.22")
	l.pair("InvalidParameterValue", "", unassign+"{10.10.1.21|10.10.1.23}") // the primary; by code only
	l.refuse("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-0ffffffffffffffff' does not exist",
		"unassign-private-ip-addresses --private-ip-addresses 10.10.1.23 --network-interface-id eni-0ffffffffffffffff")
}

func fullSubnets(t *testing.T, l *lab) {
	// A /28 has 11 addresses for us, and worker-1's ENI has one of them.
	l.pair("InsufficientFreeAddressesInSubnet", "The specified subnet does not have enough free addresses to satisfy the request.",
		"assign-private-ip-addresses --secondary-private-ip-address-count {11|10} --network-interface-id "+l.eni("worker-1", 2))
	l.pair("InsufficientCidrBlocks", "The specified subnet does not have enough free cidr blocks to satisfy the request.",
		"assign-private-ip-addresses --ipv4-prefix-count 1 --network-interface-id {"+l.eni("worker-1", 2)+"|"+l.eni("worker-1", 1)+"}")
	l.pair("InsufficientFreeAddressesInSubnet", "The specified subnet does not have enough free addresses to satisfy the request.",
		"create-network-interface --subnet-id {"+l.subnet("tiny")+"|"+l.subnet("multus-1")+"}").
		expect(t, map[string]string{"NetworkInterface.Status": `"pending"`})
}

func (l *lab) subnet(name string) string {
	l.t.Helper()
	return l.accept("describe-subnets --filters Name=tag:Name,Values="+name).text(l.t, "Subnets.0.SubnetId")
}

func ipv6(t *testing.T, l *lab) {
	eni := l.eni("worker-1", 1)
	assign := "assign-ipv6-addresses --network-interface-id " + eni
	// By code only: the wording of a taken address is not known.
	l.pair("InvalidParameterValue", "", assign+" --ipv6-addresses {2600:1f14:abc:de01::22|2600:1f14:abc:de01::23}").
		expect(t, map[string]string{"AssignedIpv6Addresses.0": `"2600:1f14:abc:de01::23"`})
	l.pair("InvalidParameterValue", "Address does not fall within the subnet's address range",
		assign+" --ipv6-addresses {2600:1f14:abc:de02::24|2600:1f14:abc:de01::24}")
	l.pair("InvalidParameterCombination", "IPv6 addresses and IPv6 address count may not be specified on the same request",
		assign+" --ipv6-addresses 2600:1f14:abc:de01::25 {--ipv6-address-count=1|}")
	// 15 on m5.2xlarge, apart from the IPv4 ones; the code is not known for certain.
	l.pair("PrivateIpAddressLimitExceeded", "", assign+" --ipv6-address-count {13|12}")
	l.pair("InvalidParameterValue", "",
		"unassign-ipv6-addresses --network-interface-id "+eni+" --ipv6-addresses {2600:1f14:abc:de01::22|2600:1f14:abc:de01::23}").
		expect(t, map[string]string{"UnassignedIpv6Addresses": `["2600:1f14:abc:de01::23"]`})
	l.accept("describe-network-interfaces --filters Name=ipv6-addresses.ipv6-address,Values=2600:1f14:abc:de01::22").
		expect(t, map[string]string{"NetworkInterfaces.0.NetworkInterfaceId": `"` + l.eni("worker-2", 1) + `"`})
}
