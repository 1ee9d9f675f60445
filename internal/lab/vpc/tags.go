// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"maps"
	"strings"
	"time"
)

// maxTags is the number of tags that a resource can have.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
const maxTags = 50

// CreateTags sets tags on resources, all or none.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html
func (c *Cloud) CreateTags(now time.Time, ids []string, tags map[string]string) error {
	return c.retag(now, ids, func(old map[string]string) (map[string]string, error) {
		if old == nil {
			old = map[string]string{}
		}
		if err := CheckTags(tags); err != nil {
			return nil, err
		}
		maps.Copy(old, tags)
		return old, checkTagCount(old)
	})
}

// DeleteTags removes the selected tags from resources, or every tag that is the user's without selectors. A tag that is
// not there is no error. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteTags.html
func (c *Cloud) DeleteTags(now time.Time, ids []string, tags []TagSelector) error {
	return c.retag(now, ids, func(old map[string]string) (map[string]string, error) {
		if len(tags) == 0 {
			maps.DeleteFunc(old, func(k, _ string) bool { return !reservedTag(k) })
			return old, nil
		}
		for _, t := range tags {
			if v, ok := old[t.Key]; ok && (t.Value == nil || *t.Value == v) {
				delete(old, t.Key)
			}
		}
		return old, nil
	})
}

// CheckTags refuses tags that EC2 refuses.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions; unverified: the wordings.
func CheckTags(tags map[string]string) error {
	if err := checkTagCount(tags); err != nil {
		return err
	}
	for k, v := range tags {
		switch {
		case k == "" || len([]rune(k)) > 127:
			return InvalidValue("Tag key '%s' must be between 1 and 127 characters long", k)
		case len([]rune(v)) > 255:
			return InvalidValue("Tag value of '%s' exceeds the maximum length of 255 characters", k)
		case reservedTag(k):
			return InvalidValue("Tag keys starting with 'aws:' are reserved for internal use")
		}
	}
	return nil
}

// checkTagCount refuses more tags than a resource can have; those that AWS sets do not count.
func checkTagCount(tags map[string]string) error {
	n := 0
	for k := range tags {
		if !reservedTag(k) {
			n++
		}
	}
	if n > maxTags {
		return Errorf("TagLimitExceeded", "The maximum number of tags for a resource is %d", maxTags)
	}
	return nil
}

// reservedTag reports whether only AWS sets tags of that key.
func reservedTag(key string) bool { return strings.HasPrefix(strings.ToLower(key), "aws:") }

// retag gives each resource the tags that f makes of a copy of its tags.
func (c *Cloud) retag(now time.Time, ids []string, f func(map[string]string) (map[string]string, error)) error {
	return c.change(now, func(tx *change) error {
		if len(ids) == 0 {
			return errMissing("resourceIdSet")
		}
		for _, id := range unique(ids) {
			if err := tx.retagOne(id, f); err != nil {
				return err
			}
		}
		return nil
	})
}

func (tx *change) retagOne(id string, f func(map[string]string) (map[string]string, error)) error {
	kind, _, _ := strings.Cut(id, "-")
	switch kind {
	case "eni":
		e, err := tx.eni(id)
		if err != nil {
			return err
		}
		if e.Tags, err = f(e.Tags); err != nil {
			return err
		}
		return tx.putENI(e)
	case "i":
		i, err := tx.instance(id)
		if err != nil {
			return err
		}
		if i.Tags, err = f(maps.Clone(i.Tags)); err != nil {
			return err
		}
		tx.putInstance(i)
		return nil
	case "subnet":
		return retagStored(tx, &tx.subnets, id, f, func(s *Subnet) *map[string]string { return &s.Tags }, errSubnetNotFound(id))
	case "sg":
		return retagStored(tx, &tx.groups, id, f, func(g *SecurityGroup) *map[string]string { return &g.Tags }, errGroupNotFound(id))
	case "vpc":
		return retagStored(tx, &tx.vpcs, id, f, func(v *VPC) *map[string]string { return &v.Tags }, errVPCNotFound(id))
	case "scr":
		return retagStored(tx, &tx.reservations, id, f, func(r *Reservation) *map[string]string { return &r.Tags },
			Errorf("InvalidSubnetCidrReservationID.NotFound", "The subnet CIDR reservation ID '%s' does not exist", id))
	}
	// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html (InvalidID)
	return Errorf("InvalidID", "The ID '%s' is not valid", id)
}

func retagStored[T any](
	tx *change, s *store[T], id string, f func(map[string]string) (map[string]string, error),
	tags func(*T) *map[string]string, notFound *APIError,
) error {
	v, ok := s.newest(id)
	if !ok {
		return notFound
	}
	next, err := f(maps.Clone(*tags(&v)))
	if err != nil {
		return err
	}
	*tags(&v) = next
	tx.commit = append(tx.commit, func() { s.put(tx.now, id, v) })
	return nil
}

// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html (InvalidVpcID.NotFound)
func errVPCNotFound(id string) *APIError {
	return Errorf("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
}
