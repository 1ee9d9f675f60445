// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package pods attaches pods as container runtimes do and sends packets: the real agent and the real plugins on two
// workers of the lab, behind the build tag ipvlan. It holds what users see of the whole: which runtimes, versions and
// plugin chains work, that an address is routed when ADD returns, that an address which EC2 does not hold for a pod's
// ENI is of no use, and that DEL leaves nothing. The package has only tests: what a single part promises is tested
// where the part is.
//
// The programs come from the folders MULTUS_VPC_BIN (this project's) and MULTUS_VPC_PEERS (cnitool and the reference
// plugins).
package pods
