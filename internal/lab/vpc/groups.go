// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"slices"
	"strings"
	"time"
)

// SecurityGroup is a security group. The lab's groups have no rules: they filter nothing.
type SecurityGroup struct {
	ID          string
	VPCID       string
	Name        string
	Description string
	OwnerID     string
	Tags        map[string]string
}

// SecurityGroupSetup describes a security group of a scenario or a stack.
type SecurityGroupSetup struct {
	VPCID       string
	Name        string
	Description string
	Tags        map[string]string
}

// describable are the characters of a security group's description; an apostrophe is none of them.
const describable = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789. _-:/()#,@[]+=&;{}!$*"

// AddSecurityGroup makes a security group. A name is unique in its VPC; it may be left out, which EC2 does not allow.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html
func (c *Cloud) AddSecurityGroup(now time.Time, in SecurityGroupSetup) (out SecurityGroup, err error) {
	err = c.change(now, func(tx *change) error {
		if _, ok := tx.vpcs.newest(in.VPCID); !ok {
			return errVPCNotFound(in.VPCID)
		}
		if len(in.Description) > 255 || strings.ContainsFunc(in.Description, func(r rune) bool { return !strings.ContainsRune(describable, r) }) {
			return InvalidValue("Invalid security group description. Valid descriptions are strings less than 256 characters from the following set: " +
				" a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*")
		}
		for _, g := range tx.groups.all() {
			if g.VPCID == in.VPCID && g.Name == in.Name && in.Name != "" {
				// https://github.com/hashicorp/terraform-provider-aws/issues/3494
				return Errorf("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", in.Name, in.VPCID)
			}
		}
		out = SecurityGroup{
			ID: tx.newID("sg"), VPCID: in.VPCID, Name: in.Name, Description: in.Description, OwnerID: tx.cfg.AccountID, Tags: named("", in.Tags),
		}
		tx.commit = append(tx.commit, func() { tx.groups.put(tx.now, out.ID, out) })
		return CheckTags(out.Tags)
	})
	return out, err
}

// RemoveSecurityGroup deletes a security group that no ENI has.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSecurityGroup.html
func (c *Cloud) RemoveSecurityGroup(now time.Time, id string) error {
	return c.change(now, func(tx *change) error {
		g, ok := tx.groups.newest(id)
		if !ok {
			return errGroupNotFound(id)
		}
		if id == defaultGroup(g.VPCID) {
			// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html (CannotDelete)
			return Errorf("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", id)
		}
		for e := range tx.each() {
			if slices.Contains(e.Groups, id) {
				return errDependency("security group", id)
			}
		}
		tx.commit = append(tx.commit, func() { tx.groups.remove(tx.now, id) })
		return nil
	})
}

// checkGroups refuses security groups that an ENI in the subnet cannot have. The codes are documented, the wording as users see
// it: https://github.com/philschmid/efsync/pull/16. unverified: that CreateNetworkInterface words it like RunInstances.
func (tx *change) checkGroups(s Subnet, ids []string) error {
	for _, id := range ids {
		g, ok := tx.groups.newest(id)
		if !ok {
			return errGroupNotFound(id)
		}
		if g.VPCID != s.VPCID {
			return Errorf("InvalidParameter", "Security group %s and subnet %s belong to different networks.", id, s.ID)
		}
	}
	return nil
}

// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html (InvalidGroup.NotFound)
func errGroupNotFound(id string) *APIError {
	return Errorf("InvalidGroup.NotFound", "The security group '%s' does not exist", id)
}

// defaultGroupOf is the group that each VPC has from the start.
func defaultGroupOf(v VPC) SecurityGroup {
	return SecurityGroup{
		ID: defaultGroup(v.ID), VPCID: v.ID, Name: "default", Description: "default VPC security group", OwnerID: v.OwnerID,
	}
}

// SecurityGroups returns all security groups, sorted by ID.
func (v View) SecurityGroups() []SecurityGroup {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	return v.cloud.groups.allAsOf(v.at)
}
