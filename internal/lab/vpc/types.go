// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"slices"
	"strings"
)

// InstanceType is what limits the network of an instance.
type InstanceType struct {
	Name              string
	NetworkCards      int
	InterfacesPerCard int
	IPv4PerInterface  int // the primary included; a delegated prefix counts as one
	Hypervisor        string
}

// Values of [InstanceType.Hypervisor]. Delegated prefixes need Nitro, bare metal included.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-prefix-eni.html
const (
	Nitro = "nitro"
	Xen   = "xen"
	Metal = "" // bare metal has no hypervisor
)

// Interfaces is how many ENIs an instance of the type can have, over all cards.
func (t InstanceType) Interfaces() int { return t.NetworkCards * t.InterfacesPerCard }

// IPv6PerInterface is counted apart from the IPv4 limit.
// unverified: that it equals the IPv4 limit for every type of the table, as it does for those that the user guide shows.
func (t InstanceType) IPv6PerInterface() int { return t.IPv4PerInterface }

// LookupInstanceType returns the type of that name.
func LookupInstanceType(name string) (InstanceType, bool) {
	i, ok := slices.BinarySearchFunc(instanceTypes, name, func(t InstanceType, name string) int {
		return strings.Compare(t.Name, name)
	})
	if !ok {
		return InstanceType{}, false
	}
	return instanceTypes[i], true
}

// InstanceTypes returns the types that the lab knows, sorted by name.
func InstanceTypes() []InstanceType { return slices.Clone(instanceTypes) }

// largestType is what limits an ENI that is not attached.
// unverified: the API reference has no limit for one; 64 is the largest of any type.
func largestType() InstanceType {
	return slices.MaxFunc(instanceTypes, func(a, b InstanceType) int { return a.IPv4PerInterface - b.IPv4PerInterface })
}

// instanceTypes is sorted by name and never changed.
//
// The numbers are those of the VPC CNI's table, which is generated from DescribeInstanceTypes (commit b52188387f2e of
// August 2026): https://github.com/aws/amazon-vpc-cni-k8s/blob/master/pkg/vpc/vpc_ip_resource_limit.go. The user guide
// lists them under "Maximum IP addresses per network interface" and "Network cards":
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/AvailableIpPerENI.html
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-eni.html#network-cards
var instanceTypes = []InstanceType{
	// name, network cards, ENIs per card, IPv4 addresses per ENI, hypervisor
	{"c5.18xlarge", 1, 15, 50, Nitro},
	{"c5.2xlarge", 1, 4, 15, Nitro},
	{"c5.4xlarge", 1, 8, 30, Nitro},
	{"c5.9xlarge", 1, 8, 30, Nitro},
	{"c5.large", 1, 3, 10, Nitro},
	{"c5.metal", 1, 15, 50, Metal},
	{"c5.xlarge", 1, 4, 15, Nitro},
	{"c5n.18xlarge", 1, 15, 50, Nitro},
	{"c6g.8xlarge", 1, 8, 30, Nitro},
	{"c6i.8xlarge", 1, 8, 30, Nitro},
	{"c6in.32xlarge", 2, 8, 50, Nitro},
	{"c6in.8xlarge", 1, 8, 30, Nitro},
	{"c8gb.48xlarge", 2, 12, 50, Nitro},
	{"c8gn.48xlarge", 2, 12, 50, Nitro},
	{"dl1.24xlarge", 4, 15, 50, Nitro},
	{"g5.12xlarge", 1, 15, 50, Nitro},
	{"g6e.48xlarge", 4, 10, 50, Nitro},
	{"hpc6id.32xlarge", 2, 1, 50, Nitro},
	{"hpc7a.96xlarge", 2, 2, 50, Nitro},
	{"m4.large", 1, 2, 10, Xen},
	{"m5.12xlarge", 1, 8, 30, Nitro},
	{"m5.24xlarge", 1, 15, 50, Nitro},
	{"m5.2xlarge", 1, 4, 15, Nitro},
	{"m5.4xlarge", 1, 8, 30, Nitro},
	{"m5.8xlarge", 1, 8, 30, Nitro},
	{"m5.large", 1, 3, 10, Nitro},
	{"m5.xlarge", 1, 4, 15, Nitro},
	{"m5n.24xlarge", 1, 15, 50, Nitro},
	{"m6g.4xlarge", 1, 8, 30, Nitro},
	{"m6g.large", 1, 3, 10, Nitro},
	{"m6i.2xlarge", 1, 4, 15, Nitro},
	{"m6i.32xlarge", 1, 15, 50, Nitro},
	{"m6i.4xlarge", 1, 8, 30, Nitro},
	{"m6i.8xlarge", 1, 8, 30, Nitro},
	{"m6i.large", 1, 3, 10, Nitro},
	{"m6i.xlarge", 1, 4, 15, Nitro},
	{"m6in.32xlarge", 2, 8, 50, Nitro},
	{"m7g.16xlarge", 1, 15, 50, Nitro},
	{"m7g.large", 1, 3, 10, Nitro},
	{"m7i.2xlarge", 1, 4, 15, Nitro},
	{"m7i.48xlarge", 1, 15, 50, Nitro},
	{"m8g.large", 1, 3, 10, Nitro},
	{"m8in.96xlarge", 2, 12, 64, Nitro},
	{"p4d.24xlarge", 4, 15, 50, Nitro},
	{"p4de.24xlarge", 4, 15, 50, Nitro},
	{"p5.48xlarge", 32, 2, 50, Nitro},
	{"p5en.48xlarge", 16, 4, 50, Nitro},
	{"p6-b200.48xlarge", 8, 4, 50, Nitro},
	{"r5.4xlarge", 1, 8, 30, Nitro},
	{"r6i.8xlarge", 1, 8, 30, Nitro},
	{"r6in.32xlarge", 2, 8, 50, Nitro},
	{"t2.medium", 1, 3, 6, Xen},
	{"t3.2xlarge", 1, 4, 15, Nitro},
	{"t3.large", 1, 3, 12, Nitro},
	{"t3.medium", 1, 3, 6, Nitro},
	{"t3.small", 1, 3, 4, Nitro},
	{"t3.xlarge", 1, 4, 15, Nitro},
	{"t4g.medium", 1, 3, 6, Nitro},
	{"trn1.32xlarge", 8, 5, 50, Nitro},
	{"trn1n.32xlarge", 16, 5, 50, Nitro},
	{"trn2.48xlarge", 16, 2, 50, Nitro},
	{"u7in-24tb.224xlarge", 2, 8, 50, Nitro},
}
