// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

// Happening is something that an operator counts.
type Happening uint8

// What [Config.Count] is told of.
const (
	Conflict  Happening = iota // EC2 refused a call because another ENI has an address of it
	Lost                       // an address that a pod uses is no longer on its ENI
	Contested                  // a lost address is found on another ENI
	Reaped                     // an attachment was released because its network namespace is gone: a DEL was lost
	Buried                     // a tombstone released its attachment: a DEL came while no agent ran
	Outdated                   // a tombstone found nothing that is older than itself
)
