// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package metadata

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// roleName is the instance profile's role.
const roleName = "multus-vpc-lab"

// documents is the tree of an instance.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html#instancemetadata-data-categories
func documents(cloud *vpc.Cloud, view vpc.View, i vpc.Instance, now time.Time) tree {
	const meta = "/latest/meta-data/"
	t := tree{}
	enis := view.ENIs(i.ID)
	set(t, meta+"ami-id", i.ImageID)
	set(t, meta+"ami-launch-index", i.LaunchIndex)
	set(t, meta+"instance-id", i.ID)
	set(t, meta+"instance-life-cycle", "on-demand")
	set(t, meta+"instance-type", i.Type)
	set(t, meta+"placement/availability-zone", i.AZ)
	set(t, meta+"placement/availability-zone-id", vpc.ZoneID(i.AZ))
	set(t, meta+"placement/region", cloud.Region())
	set(t, meta+"reservation-id", i.ReservationID)
	set(t, meta+"services/domain", "amazonaws.com")
	set(t, meta+"services/partition", "aws")
	for key, value := range i.Tags {
		// A key with a slash or space cannot be shown: EC2 refuses tags in the metadata for such an instance.
		// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html
		if key != "" && !strings.ContainsAny(key, "/ ") {
			set(t, meta+"tags/instance/"+key, value)
		}
	}
	for _, e := range enis {
		interfaceKeys(t, meta+"network/interfaces/macs/"+e.MAC+"/", cloud, view, i, e)
	}
	if len(enis) > 0 {
		set(t, meta+"mac", enis[0].MAC)
		if enis[0].Primary.IsValid() {
			name := hostname(enis[0].Primary, cloud.Region())
			set(t, meta+"hostname", name)
			set(t, meta+"local-hostname", name)
			set(t, meta+"local-ipv4", enis[0].Primary)
		}
		if len(enis[0].IPv6) > 0 {
			set(t, meta+"ipv6", enis[0].IPv6[0])
		}
		set(t, meta+"security-groups", enis[0].Groups...)
	}
	credentials(t, meta+"iam/", cloud, i, now)
	identity(t, cloud, i, enis)
	return t
}

// interfaceKeys are the keys of one ENI. There is no key network-card on a type with one card, and none for kinds of
// addresses that the ENI does not have.
func interfaceKeys(t tree, dir string, cloud *vpc.Cloud, view vpc.View, i vpc.Instance, e vpc.ENI) {
	set(t, dir+"device-number", e.Attachment.DeviceIndex)
	set(t, dir+"interface-id", e.ID)
	set(t, dir+"mac", e.MAC)
	set(t, dir+"owner-id", e.OwnerID)
	set(t, dir+"subnet-id", e.SubnetID)
	set(t, dir+"vpc-id", e.VPCID)
	set(t, dir+"security-groups", e.Groups...)
	set(t, dir+"security-group-ids", e.Groups...)
	set(t, dir+"local-ipv4s", e.IPv4()...)
	set(t, dir+"ipv4-prefix", e.Prefixes...)
	set(t, dir+"ipv6s", e.IPv6...)
	set(t, dir+"ipv6-prefix", e.IPv6Prefixes...)
	if e.Primary.IsValid() {
		set(t, dir+"local-hostname", hostname(e.Primary, cloud.Region()))
	}
	if kind, ok := vpc.LookupInstanceType(i.Type); ok && kind.NetworkCards > 1 {
		set(t, dir+"network-card", e.Attachment.NetworkCard)
	}
	if s, ok := view.Subnet(e.SubnetID); ok {
		set(t, dir+"subnet-ipv4-cidr-block", valid(s.IPv4)...)
		set(t, dir+"subnet-ipv6-cidr-blocks", valid(s.IPv6)...)
	}
	if v, ok := view.VPC(e.VPCID); ok {
		set(t, dir+"vpc-ipv4-cidr-block", valid(v.IPv4)...)
		set(t, dir+"vpc-ipv4-cidr-blocks", valid(v.IPv4)...)
		set(t, dir+"vpc-ipv6-cidr-blocks", valid(v.IPv6)...)
	}
}

func valid(p netip.Prefix) []netip.Prefix {
	if !p.IsValid() {
		return nil
	}
	return []netip.Prefix{p}
}

// hostname is the IP-based one.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/hostname-types.html
func hostname(a netip.Addr, region string) string {
	domain := region + ".compute.internal"
	if region == "us-east-1" {
		domain = "ec2.internal"
	}
	return "ip-" + strings.ReplaceAll(a.String(), ".", "-") + "." + domain
}

// credentialsTTL is how long credentials live; EC2 renews its own at least 5 minutes before they end, the lab at every
// read.
const credentialsTTL = 6 * time.Hour

// credentials are keys that no AWS account knows.
func credentials(t tree, dir string, cloud *vpc.Cloud, i vpc.Instance, now time.Time) {
	updated := now.UTC().Truncate(time.Second)
	set(t, dir+"info", document(map[string]string{
		"Code":               "Success",
		"LastUpdated":        updated.Format(time.RFC3339),
		"InstanceProfileArn": "arn:aws:iam::" + cloud.AccountID() + ":instance-profile/" + roleName,
		"InstanceProfileId":  "AIPALAB",
	}))
	set(t, dir+"security-credentials/"+roleName, document(map[string]string{
		"Code":            "Success",
		"Type":            "AWS-HMAC",
		"LastUpdated":     updated.Format(time.RFC3339),
		"Expiration":      updated.Add(credentialsTTL).Format(time.RFC3339),
		"AccessKeyId":     AccessKeyID(i.ID),
		"SecretAccessKey": "a secret of the lab",
		"Token":           "a session of the lab",
	}))
}

func identity(t tree, cloud *vpc.Cloud, i vpc.Instance, enis []vpc.ENI) {
	doc := map[string]string{
		"version":          "2017-09-30",
		"accountId":        cloud.AccountID(),
		"architecture":     "x86_64",
		"availabilityZone": i.AZ,
		"imageId":          i.ImageID,
		"instanceId":       i.ID,
		"instanceType":     i.Type,
		"pendingTime":      i.LaunchTime.UTC().Format(time.RFC3339),
		"region":           cloud.Region(),
	}
	if len(enis) > 0 && enis[0].Primary.IsValid() {
		doc["privateIp"] = enis[0].Primary.String()
	}
	set(t, "/latest/dynamic/instance-identity/document", document(doc))
}

func document(fields map[string]string) string {
	b, err := json.MarshalIndent(fields, "", "  ")
	if err != nil {
		panic(err) // strings always encode
	}
	return string(b)
}
