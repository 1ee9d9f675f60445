// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"fmt"
	"strings"
)

// newID makes an ID in EC2's long form: the prefix, a zero and sixteen hexadecimal digits.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html
func (c *Cloud) newID(prefix string) string { return fmt.Sprintf("%s-0%016x", prefix, c.rng.Uint64()) }

// newMAC makes a locally administered MAC, as EC2's are.
func (c *Cloud) newMAC() string {
	n := c.rng.Uint64()
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x",
		byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// ZoneID derives an availability zone ID from the zone's name: "us-west-2a" is "usw2-az1". Real accounts have the
// letters shuffled. https://docs.aws.amazon.com/ram/latest/userguide/working-with-az-ids.html
func ZoneID(az string) string {
	if az == "" {
		return ""
	}
	letter := az[len(az)-1]
	parts := strings.Split(az[:len(az)-1], "-")
	compass := strings.NewReplacer("north", "n", "south", "s", "east", "e", "west", "w", "central", "c")
	for i := range parts[1:] {
		parts[i+1] = compass.Replace(parts[i+1])
	}
	return fmt.Sprintf("%s-az%d", strings.Join(parts, ""), letter-'a'+1)
}
