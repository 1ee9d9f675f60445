// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package link reads and changes network links over netlink. The agent finds and brings up the links of ENIs with it, and
// learns when they come and go; vpcipvlan makes, checks and deletes the pods' ipvlan children. It knows links, addresses,
// routes and rules, and nothing of who may have which address: that does not belong here.
package link
