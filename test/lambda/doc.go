// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package lambda holds the tests of the function as it is deployed: the real bootstrap, run by the lab's Lambda, invoked through a
// rule by what an Auto Scaling group does, calling the lab's EC2 and Auto Scaling over sockets. What its parts decide is tested where
// they are. MULTUS_VPC_ROUNDS makes TestCost measure so many times.
package lambda
