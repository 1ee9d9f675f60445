// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

// actions is everything that the API does.
func actions() map[string]action {
	return map[string]action{
		"AssignPrivateIpAddresses":          handle(assignPrivateIPAddresses),
		"UnassignPrivateIpAddresses":        handle(unassignPrivateIPAddresses),
		"AssignIpv6Addresses":               handle(assignIPv6Addresses),
		"UnassignIpv6Addresses":             handle(unassignIPv6Addresses),
		"CreateNetworkInterface":            handle(createNetworkInterface),
		"DescribeNetworkInterfaces":         handle(describeNetworkInterfaces),
		"DescribeNetworkInterfaceAttribute": handle(describeNetworkInterfaceAttribute),
		"ModifyNetworkInterfaceAttribute":   handle(modifyNetworkInterfaceAttribute),
		"AttachNetworkInterface":            handle(attachNetworkInterface),
		"DetachNetworkInterface":            handle(detachNetworkInterface),
		"DeleteNetworkInterface":            handle(deleteNetworkInterface),
		"RunInstances":                      handle(runInstances),
		"DescribeInstances":                 handle(describeInstances),
		"TerminateInstances":                handle(terminateInstances),
		"DescribeInstanceTypes":             handle(describeInstanceTypes),
		"DescribeVpcs":                      handle(describeVPCs),
		"CreateSecurityGroup":               handle(createSecurityGroup),
		"DescribeSecurityGroups":            handle(describeSecurityGroups),
		"DeleteSecurityGroup":               handle(deleteSecurityGroup),
		"DescribeSubnets":                   handle(describeSubnets),
		"CreateSubnetCidrReservation":       handle(createSubnetCIDRReservation),
		"GetSubnetCidrReservations":         handle(getSubnetCIDRReservations),
		"DeleteSubnetCidrReservation":       handle(deleteSubnetCIDRReservation),
		"CreateLaunchTemplate":              handle(createLaunchTemplate),
		"DescribeLaunchTemplates":           handle(describeLaunchTemplates),
		"DeleteLaunchTemplate":              handle(deleteLaunchTemplate),
		"CreateTags":                        handle(createTags),
		"DeleteTags":                        handle(deleteTags),
		"DescribeTags":                      handle(describeTags),
	}
}
