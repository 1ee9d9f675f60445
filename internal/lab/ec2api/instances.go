// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

type runInstancesRequest struct {
	ImageID      string   `ec2:"ImageId,required"`
	InstanceType string   `ec2:"InstanceType,required"`
	MinCount     int      `ec2:"MinCount,required"`
	MaxCount     int      `ec2:"MaxCount,required"`
	SubnetID     string   `ec2:"SubnetId"`
	Groups       []string `ec2:"SecurityGroupId"`
	Placement    struct {
		AZ string `ec2:"AvailabilityZone"`
	} `ec2:"Placement"`
	PrivateIP netip.Addr `ec2:"PrivateIpAddress"`
	IPv6Count int        `ec2:"Ipv6AddressCount"`
	IPv6      []struct {
		Address netip.Addr `ec2:"Ipv6Address,required"`
	} `ec2:"Ipv6Address"`
	Interfaces  []interfaceSpecification `ec2:"NetworkInterface"`
	Tags        []tagSpecification       `ec2:"TagSpecification"`
	Metadata    metadataOptions          `ec2:"MetadataOptions"`
	ClientToken string                   `ec2:"ClientToken"`
	DryRun      bool                     `ec2:"DryRun"`
}

type interfaceSpecification struct {
	NetworkInterfaceID  string   `ec2:"NetworkInterfaceId"`
	DeviceIndex         *int     `ec2:"DeviceIndex"`
	NetworkCardIndex    int      `ec2:"NetworkCardIndex"`
	SubnetID            string   `ec2:"SubnetId"`
	Description         string   `ec2:"Description"`
	InterfaceType       string   `ec2:"InterfaceType"`
	Groups              []string `ec2:"SecurityGroupId"`
	DeleteOnTermination *bool    `ec2:"DeleteOnTermination"`
	addressRequest
}

func (s interfaceSpecification) spec() (vpc.InterfaceSpec, error) {
	if s.DeviceIndex == nil {
		// https://github.com/hashicorp/packer/pull/2242
		return vpc.InterfaceSpec{}, vpc.InvalidValue("Each network interface requires a device index.")
	}
	addresses, err := s.request()
	return vpc.InterfaceSpec{
		NetworkInterfaceID: s.NetworkInterfaceID, NetworkCardIndex: s.NetworkCardIndex, DeviceIndex: *s.DeviceIndex,
		SubnetID: s.SubnetID, Description: s.Description, InterfaceType: s.InterfaceType, Groups: s.Groups,
		DeleteOnTermination: s.DeleteOnTermination, AddressRequest: addresses,
	}, err
}

type runInstancesResponse struct {
	reply
	launchXML
}

func runInstances(c *call, in runInstancesRequest) (*runInstancesResponse, error) {
	tags, err := tagsFor(in.Tags, "instance", "network-interface")
	if err != nil {
		return nil, err
	}
	input := vpc.RunInstancesInput{
		ImageID: in.ImageID, InstanceType: in.InstanceType, MinCount: in.MinCount, MaxCount: in.MaxCount,
		AZ: in.Placement.AZ, SubnetID: in.SubnetID, Groups: in.Groups, ClientToken: in.ClientToken,
		Tags: tags["instance"], InterfaceTags: tags["network-interface"], Metadata: vpc.MetadataOptions(in.Metadata),
		AddressRequest: vpc.AddressRequest{Primary: in.PrivateIP, IPv6Count: in.IPv6Count},
	}
	for _, a := range in.IPv6 {
		input.IPv6 = append(input.IPv6, a.Address)
	}
	for _, s := range in.Interfaces {
		spec, specErr := s.spec()
		if specErr != nil {
			return nil, specErr
		}
		input.Interfaces = append(input.Interfaces, spec)
	}
	l, err := c.cloud.RunInstances(c.now, input)
	if err != nil {
		return nil, err
	}
	return &runInstancesResponse{launchXML: c.launchOf(l.ReservationID, l.Instances, l.ENIs, vpc.StatePending)}, nil
}

// launchOf writes the instances of one launch. A state that is not empty is shown in place of theirs.
func (c *call) launchOf(id string, instances []vpc.Instance, enis []vpc.ENI, state string) launchXML {
	x := launchXML{ReservationID: id, OwnerID: c.cloud.AccountID()}
	for _, i := range instances {
		y := c.instanceOf(i, attachedTo(i.ID, enis))
		if state != "" {
			y.State = stateOf(state)
		}
		x.Instances.Items = append(x.Instances.Items, y)
	}
	return x
}

// attachedTo chooses the ENIs of one instance, in their order.
func attachedTo(instanceID string, enis []vpc.ENI) []vpc.ENI {
	var out []vpc.ENI
	for _, e := range enis {
		if e.Attachment != nil && e.Attachment.InstanceID == instanceID {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b vpc.ENI) int {
		return (a.Attachment.NetworkCard-b.Attachment.NetworkCard)*1000 + a.Attachment.DeviceIndex - b.Attachment.DeviceIndex
	})
	return out
}

type describeInstancesRequest struct {
	IDs     []string `ec2:"InstanceId"`
	Filters []filter `ec2:"Filter"`
	DryRun  bool     `ec2:"DryRun"`
	paging
}

type describeInstancesResponse struct {
	reply
	Launches  set[launchXML] `xml:"reservationSet"`
	NextToken string         `xml:"nextToken,omitempty"`
}

// instanceWithENIs is what the filters of DescribeInstances look at.
type instanceWithENIs struct {
	vpc.Instance
	enis []vpc.ENI
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
func describeInstances(c *call, in describeInstancesRequest) (*describeInstancesResponse, error) {
	if err := in.together(in.IDs, "instancesSet"); err != nil {
		return nil, err
	}
	view := c.view()
	byInstance := map[string][]vpc.ENI{}
	for _, e := range view.AllENIs() {
		if e.Attachment != nil {
			byInstance[e.Attachment.InstanceID] = append(byInstance[e.Attachment.InstanceID], e)
		}
	}
	var all []instanceWithENIs
	for _, i := range view.Instances() {
		all = append(all, instanceWithENIs{i, attachedTo(i.ID, byInstance[i.ID])})
	}
	id := func(i instanceWithENIs) string { return i.ID }
	list, err := named(all, in.IDs, id, notFound("InvalidInstanceID.NotFound", "instance"))
	if err != nil {
		return nil, err
	}
	if list, err = c.instanceFilters().choose(list, in.Filters); err != nil {
		return nil, err
	}
	// "between 5 and 1000": https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
	list, next, err := cut(in.paging, pageSize{5, 1000, 1000}, list, id)
	if err != nil {
		return nil, err
	}
	launches := map[string]launchXML{}
	for _, i := range list {
		l := c.launchOf(i.ReservationID, []vpc.Instance{i.Instance}, i.enis, "")
		l.Instances.Items = append(launches[i.ReservationID].Instances.Items, l.Instances.Items...)
		launches[i.ReservationID] = l
	}
	return &describeInstancesResponse{NextToken: next, Launches: setOf(slices.Sorted(maps.Keys(launches)),
		func(id string) launchXML { return launches[id] })}, nil
}

func (c *call) instanceFilters() filters[instanceWithENIs] {
	type in = instanceWithENIs
	return filters[in]{
		tags: func(i in) map[string]string { return i.Tags },
		fields: map[string]func(in) []string{
			"architecture":        func(i in) []string { return one(architecture(i.Type)) },
			"availability-zone":   func(i in) []string { return one(i.AZ) },
			"client-token":        func(i in) []string { return one(i.ClientToken) },
			"image-id":            func(i in) []string { return one(i.ImageID) },
			"instance-id":         func(i in) []string { return one(i.ID) },
			"instance-state-code": func(i in) []string { return one(strconv.Itoa(stateOf(i.State).Code)) },
			"instance-state-name": func(i in) []string { return one(i.State) },
			"instance-type":       func(i in) []string { return one(i.Type) },
			"network-interface.addresses.private-ip-address": i4,
			"network-interface.attachment.device-index":      eniValues(func(e vpc.ENI) []string { return one(strconv.Itoa(e.Attachment.DeviceIndex)) }),
			"network-interface.ipv6-addresses.ipv6-address":  eniValues(func(e vpc.ENI) []string { return stringsOf(e.IPv6) }),
			"network-interface.mac-address":                  eniValues(func(e vpc.ENI) []string { return one(e.MAC) }),
			"network-interface.network-interface-id":         eniValues(func(e vpc.ENI) []string { return one(e.ID) }),
			"network-interface.subnet-id":                    eniValues(func(e vpc.ENI) []string { return one(e.SubnetID) }),
			"owner-id":                                       func(i in) []string { return one(i.OwnerID) },
			"private-dns-name": func(i in) []string {
				if len(i.enis) == 0 {
					return nil
				}
				return one(c.dnsName(i.enis[0].Primary))
			},
			"private-ip-address": func(i in) []string { return primaryOf(i.enis) },
			"reservation-id":     func(i in) []string { return one(i.ReservationID) },
			"subnet-id":          func(i in) []string { return one(i.SubnetID) },
			"vpc-id":             func(i in) []string { return one(i.VPCID) },
		},
	}
}

func i4(i instanceWithENIs) []string {
	return eniValues(func(e vpc.ENI) []string { return stringsOf(e.IPv4()) })(i)
}

// eniValues collects a value over all ENIs of an instance.
func eniValues(f func(vpc.ENI) []string) func(instanceWithENIs) []string {
	return func(i instanceWithENIs) []string {
		var out []string
		for _, e := range i.enis {
			out = append(out, f(e)...)
		}
		return out
	}
}

type terminateInstancesRequest struct {
	IDs    []string `ec2:"InstanceId,required"`
	DryRun bool     `ec2:"DryRun"`
}

type terminateInstancesResponse struct {
	reply
	Instances set[stateChangeXML] `xml:"instancesSet"`
}

type stateChangeXML struct {
	ID       string   `xml:"instanceId"`
	Current  stateXML `xml:"currentState"`
	Previous stateXML `xml:"previousState"`
}

func terminateInstances(c *call, in terminateInstancesRequest) (*terminateInstancesResponse, error) {
	changes, err := c.cloud.TerminateInstances(c.now, in.IDs)
	if err != nil {
		return nil, err
	}
	return &terminateInstancesResponse{Instances: setOf(changes, func(s vpc.StateChange) stateChangeXML {
		return stateChangeXML{s.InstanceID, stateOf(s.Current), stateOf(s.Previous)}
	})}, nil
}

type describeInstanceTypesRequest struct {
	Names   []string `ec2:"InstanceType"`
	Filters []filter `ec2:"Filter"`
	DryRun  bool     `ec2:"DryRun"`
	paging
}

type describeInstanceTypesResponse struct {
	reply
	Types     set[instanceTypeXML] `xml:"instanceTypeSet"`
	NextToken string               `xml:"nextToken,omitempty"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypes.html
func describeInstanceTypes(c *call, in describeInstanceTypesRequest) (*describeInstanceTypesResponse, error) {
	name := func(t vpc.InstanceType) string { return t.Name }
	list, err := named(vpc.InstanceTypes(), in.Names, name, func(lost []string) error {
		// https://github.com/scylladb/scylla-cluster-tests/issues/12419
		return vpc.Errorf("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", strings.Join(lost, ", "))
	})
	if err != nil {
		return nil, err
	}
	list, err = filters[vpc.InstanceType]{fields: map[string]func(vpc.InstanceType) []string{
		"bare-metal":    func(t vpc.InstanceType) []string { return one(strconv.FormatBool(t.Hypervisor == vpc.Metal)) },
		"hypervisor":    func(t vpc.InstanceType) []string { return one(t.Hypervisor) },
		"instance-type": func(t vpc.InstanceType) []string { return one(t.Name) },
		"network-info.ipv4-addresses-per-interface": func(t vpc.InstanceType) []string { return one(strconv.Itoa(t.IPv4PerInterface)) },
		"network-info.maximum-network-cards":        func(t vpc.InstanceType) []string { return one(strconv.Itoa(t.NetworkCards)) },
		"network-info.maximum-network-interfaces":   func(t vpc.InstanceType) []string { return one(strconv.Itoa(t.Interfaces())) },
		"processor-info.supported-architecture":     func(t vpc.InstanceType) []string { return one(architecture(t.Name)) },
	}}.choose(list, in.Filters)
	if err != nil {
		return nil, err
	}
	// "between 5 and 100": the API reference.
	list, next, err := cut(in.paging, pageSize{5, 100, 100}, list, name)
	if err != nil {
		return nil, err
	}
	return &describeInstanceTypesResponse{Types: setOf(list, instanceTypeOf), NextToken: next}, nil
}
