// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Config says which ENIs a worker gets.
type Config struct {
	// Owner is who the ENIs belong to: the sweep frees those of no other. Required.
	Owner string
	// Tags are added to each ENI, to a copy of which the package adds its own.
	Tags map[string]string
	// Interfaces are the ENIs, of which those apply whose subnet lies in the worker's availability zone, in their order.
	Interfaces []Interface
}

// Addressing is how the primary IPv4 address of an ENI is chosen. An IPv6 address is always EC2's choice.
type Addressing string

// The ways of [Addressing].
const (
	// DHCP is a free one outside of reservations, which EC2 chooses. With a [Interface.Stock] we do: the API does not say which address
	// of a list that designates none becomes the primary one.
	// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateNetworkInterface.html
	DHCP  Addressing = "dhcp"
	Start Addressing = "start" // the first free one from the start of the subnet, outside of every reservation
	Fixed Addressing = "fixed" // the first free one of a list
)

// Interface is one ENI to be.
type Interface struct {
	Subnet eni.SubnetID
	// SubnetTags choose the subnet instead: the one in the worker's VPC and availability zone that has all of them.
	SubnetTags map[string]string
	Groups     []eni.GroupID // security groups; the default group of the VPC when empty
	// Card is the network card. EveryCard stands for an ENI on each card of the type that is not for EFA only: neither by what the
	// card takes nor because an efa-only interface was launched on it.
	Card      int
	EveryCard bool
	// Index is the device index; 0 means the next one on the card, counted from 1.
	Index int
	// Last means the highest device index of the card that is free: where the Amazon VPC CNI is at work already, which takes the lowest.
	// https://github.com/aws/amazon-vpc-cni-k8s/blob/master/pkg/awsutils/awsutils.go (awsGetFreeDeviceNumber)
	Last       bool
	Addressing Addressing
	Addresses  []netip.Addr // for [Fixed]
	// Stock is how many addresses out of the subnet's reservations, other than static ones, the ENI has from the start.
	Stock               int
	SourceDestCheck     bool
	DeleteOnTermination bool
}

// maxStock is what an ENI of the largest types holds besides its primary address.
const maxStock = 63

// maxSubnetTags is far below what EC2 takes in one call, and above what anybody means.
const maxSubnetTags = 20

// Validate reports all that is wrong with the configuration by itself, with the paths of the fields.
func (c Config) Validate() error {
	var errs []error
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Owner == "" {
		say("owner: is missing")
	} else if len(c.Owner) > 255 {
		say("owner: must not be longer than 255 characters")
	} else if strings.ContainsAny(c.Owner, `*?\`) {
		say("owner: must not contain * ? or \\, which are patterns where EC2 is asked for its ENIs")
	}
	for _, k := range slices.Sorted(maps.Keys(c.Tags)) {
		switch {
		case strings.HasPrefix(k, "aws:"):
			say("tags[%q]: keys that start with aws: are reserved", k)
		case k == eni.TagNoManage || slices.Contains([]string{TagOwner, TagInstance, TagSlot, TagLaunched}, k):
			say("tags[%q]: is set by multus-vpc itself", k)
		case k == "" || len(k) > 127 || len(c.Tags[k]) > 255:
			say("tags[%q]: a key has 1 to 127 characters, a value up to 255", k)
		}
	}
	if len(c.Tags) > 40 { // of EC2's 50
		say("tags: %d are too many, EC2 allows 50 with ours", len(c.Tags))
	}
	if len(c.Interfaces) == 0 {
		say("interfaces: none is given")
	}
	for i, n := range c.Interfaces {
		for _, err := range n.problems() {
			say("interfaces[%d].%w", i, err)
		}
	}
	return errors.Join(errs...)
}

// problems are those of one interface, each starting with the field's name.
func (n Interface) problems() (errs []error) {
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case len(n.SubnetTags) > 0 && n.Subnet != "":
		say("subnetTags: cannot stand with subnet %s", n.Subnet)
	case len(n.SubnetTags) > maxSubnetTags:
		say("subnetTags: %d are too many, at most %d", len(n.SubnetTags), maxSubnetTags)
	case len(n.SubnetTags) == 0 && !strings.HasPrefix(string(n.Subnet), "subnet-"):
		say("subnet: %q is no subnet ID", n.Subnet)
	}
	for _, g := range n.Groups {
		if !strings.HasPrefix(string(g), "sg-") {
			say("securityGroups: %q is no security group ID", g)
		}
	}
	if n.Card < 0 {
		say("networkCard: must not be negative")
	}
	if n.EveryCard && n.Card != 0 {
		say("networkCard: %d cannot stand with every card", n.Card)
	}
	if n.Index < 0 {
		say("deviceIndex: must not be negative")
	}
	if n.Last && n.Index != 0 {
		say("deviceIndex: %d cannot stand with the last one", n.Index)
	}
	switch n.Addressing {
	case DHCP, Start:
		if len(n.Addresses) > 0 {
			say("addresses: only stand with addressing %s", Fixed)
		}
	case Fixed:
		if len(n.Addresses) == 0 {
			say("addresses: are missing for addressing %s", Fixed)
		}
	default:
		say("addressing: %q is not one of %s, %s, %s", n.Addressing, DHCP, Start, Fixed)
	}
	for _, a := range n.Addresses {
		if !a.Is4() {
			say("addresses: %s is no IPv4 address", a)
		}
	}
	if n.Stock < 0 || n.Stock > maxStock {
		say("stock: must be 0 to %d", maxStock)
	}
	return errs
}
