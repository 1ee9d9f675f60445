// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"net/netip"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

type reservationXML struct {
	ID          string       `xml:"subnetCidrReservationId"`
	SubnetID    string       `xml:"subnetId"`
	CIDR        netip.Prefix `xml:"cidr"`
	Type        string       `xml:"reservationType"`
	OwnerID     string       `xml:"ownerId"`
	Description string       `xml:"description"`
	Tags        set[tagXML]  `xml:"tagSet"`
}

func reservationOf(r vpc.Reservation) reservationXML {
	return reservationXML{
		ID: r.ID, SubnetID: r.SubnetID, CIDR: r.CIDR, Type: r.Type, OwnerID: r.OwnerID, Description: r.Description,
		Tags: tagSet(r.Tags),
	}
}

type createSubnetCIDRReservationRequest struct {
	SubnetID    string             `ec2:"SubnetId,required"`
	CIDR        netip.Prefix       `ec2:"Cidr,required"`
	Type        string             `ec2:"ReservationType,required"`
	Description string             `ec2:"Description"`
	Tags        []tagSpecification `ec2:"TagSpecification"`
	DryRun      bool               `ec2:"DryRun"`
}

type createSubnetCIDRReservationResponse struct {
	reply
	Reservation reservationXML `xml:"subnetCidrReservation"`
}

func createSubnetCIDRReservation(
	c *call, in createSubnetCIDRReservationRequest,
) (*createSubnetCIDRReservationResponse, error) {
	tags, err := tagsFor(in.Tags, "subnet-cidr-reservation")
	if err != nil {
		return nil, err
	}
	r, err := c.cloud.CreateSubnetCIDRReservation(c.now, vpc.CreateSubnetCIDRReservationInput{
		SubnetID: in.SubnetID, CIDR: in.CIDR, Type: in.Type, Description: in.Description,
		Tags: tags["subnet-cidr-reservation"],
	})
	if err != nil {
		return nil, err
	}
	return &createSubnetCIDRReservationResponse{Reservation: reservationOf(r)}, nil
}

type getSubnetCIDRReservationsRequest struct {
	SubnetID string   `ec2:"SubnetId,required"`
	Filters  []filter `ec2:"Filter"`
	DryRun   bool     `ec2:"DryRun"`
	paging
}

type getSubnetCIDRReservationsResponse struct {
	reply
	IPv4      set[reservationXML] `xml:"subnetIpv4CidrReservationSet"`
	IPv6      set[reservationXML] `xml:"subnetIpv6CidrReservationSet"`
	NextToken string              `xml:"nextToken,omitempty"`
}

// reservationPage is how many reservations come without MaxResults: who reads one page only loses the others.
// https://github.com/hashicorp/terraform-provider-aws/issues/45304
const reservationPage = 255

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetSubnetCidrReservations.html
func getSubnetCIDRReservations(c *call, in getSubnetCIDRReservationsRequest) (*getSubnetCIDRReservationsResponse, error) {
	view := c.view()
	if _, found := view.Subnet(in.SubnetID); !found {
		return nil, notFound("InvalidSubnetID.NotFound", "subnet")([]string{in.SubnetID})
	}
	var list []vpc.Reservation
	for _, r := range view.Reservations() {
		if r.SubnetID == in.SubnetID {
			list = append(list, r)
		}
	}
	list, err := filters[vpc.Reservation]{
		tags: func(r vpc.Reservation) map[string]string { return r.Tags },
		fields: map[string]func(vpc.Reservation) []string{
			"reservationType": func(r vpc.Reservation) []string { return one(r.Type) },
			"subnet-id":       func(r vpc.Reservation) []string { return one(r.SubnetID) },
		},
	}.choose(list, in.Filters)
	if err != nil {
		return nil, err
	}
	list, next, err := cut(in.paging, pageSize{5, 1000, reservationPage}, list, func(r vpc.Reservation) string { return r.ID })
	if err != nil {
		return nil, err
	}
	out := &getSubnetCIDRReservationsResponse{NextToken: next}
	for _, r := range list {
		if r.CIDR.Addr().Is4() {
			out.IPv4.Items = append(out.IPv4.Items, reservationOf(r))
		} else {
			out.IPv6.Items = append(out.IPv6.Items, reservationOf(r))
		}
	}
	return out, nil
}

type deleteSubnetCIDRReservationRequest struct {
	ID     string `ec2:"SubnetCidrReservationId,required"`
	DryRun bool   `ec2:"DryRun"`
}

type deleteSubnetCIDRReservationResponse struct {
	reply
	Deleted reservationXML `xml:"deletedSubnetCidrReservation"`
}

func deleteSubnetCIDRReservation(
	c *call, in deleteSubnetCIDRReservationRequest,
) (*deleteSubnetCIDRReservationResponse, error) {
	r, err := c.cloud.DeleteSubnetCIDRReservation(c.now, in.ID)
	if err != nil {
		return nil, err
	}
	return &deleteSubnetCIDRReservationResponse{Deleted: reservationOf(r)}, nil
}
