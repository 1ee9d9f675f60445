// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package eni

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Selector chooses ENIs of one worker by what they are. Fields that are set must all match; the zero Selector matches
// every secondary ENI.
type Selector struct {
	// DeviceIndex of the attachment. Without NetworkCard it means card 0.
	DeviceIndex *int `json:"deviceIndex,omitempty"`
	// NetworkCard is the NetworkCardIndex of the attachment.
	NetworkCard *int `json:"networkCard,omitempty"`
	// SubnetID of the ENI.
	SubnetID SubnetID `json:"subnetID,omitempty"`
	// SubnetTags that the ENI's subnet must carry, all of them.
	SubnetTags map[string]string `json:"subnetTags,omitempty"`
	// MAC of the ENI: what a `master` link name was resolved to.
	MAC MAC `json:"mac,omitempty"`
}

// IsZero reports whether nothing is selected by.
func (s Selector) IsZero() bool {
	return s.DeviceIndex == nil && s.NetworkCard == nil && s.SubnetID == "" && len(s.SubnetTags) == 0 && s.MAC == ""
}

// NeedsTags reports whether matching needs the subnet's tags, which the instance metadata does not know.
func (s Selector) NeedsTags() bool { return len(s.SubnetTags) > 0 }

// Matches reports whether the ENI, in the given subnet, is selected.
func (s Selector) Matches(i Interface, subnet Subnet) bool {
	if s.DeviceIndex != nil && (i.DeviceIndex != *s.DeviceIndex || (s.NetworkCard == nil && i.NetworkCard != 0)) {
		return false
	}
	if s.NetworkCard != nil && i.NetworkCard != *s.NetworkCard {
		return false
	}
	if s.SubnetID != "" && i.SubnetID != s.SubnetID {
		return false
	}
	if s.MAC != "" && i.MAC != s.MAC {
		return false
	}
	for k, v := range s.SubnetTags {
		if got, ok := subnet.Tags[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// String prints the selector as a user wrote it: "deviceIndex 1, subnetTags multus=1".
func (s Selector) String() string {
	var parts []string
	if s.DeviceIndex != nil {
		parts = append(parts, fmt.Sprintf("deviceIndex %d", *s.DeviceIndex))
	}
	if s.NetworkCard != nil {
		parts = append(parts, fmt.Sprintf("networkCard %d", *s.NetworkCard))
	}
	if s.SubnetID != "" {
		parts = append(parts, fmt.Sprintf("subnetID %s", s.SubnetID))
	}
	for _, k := range slices.Sorted(maps.Keys(s.SubnetTags)) {
		parts = append(parts, fmt.Sprintf("subnetTags %s=%s", k, s.SubnetTags[k]))
	}
	if s.MAC != "" {
		parts = append(parts, fmt.Sprintf("master with MAC %s", s.MAC))
	}
	if len(parts) == 0 {
		return "no selector"
	}
	return strings.Join(parts, ", ")
}
