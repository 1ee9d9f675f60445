// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package chaos runs four workers that share a reservation too small for them, with real agents and plugins, and lets
// everything befall them that its seed says: processes killed and stopped at any moment, workers lost and rebooted,
// connections to EC2 and to the instance metadata that refuse, swallow or delay, an EC2 that throttles, breaks and loses
// replies, full disks, strangers who take addresses. After each epoch there is quiet, and agents, EC2 and the network
// namespaces must agree. The points of the work that test/kill stands at are exact; here it is the unforeseen
// coincidence that counts. The package has only tests; docs/chaos.md says how to run them and how to read what they say.
package chaos
