// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package socket holds what pods get through the agent's sync socket, and what they do not get, on two workers of the lab with real
// agents, the real sidecar without any credentials, and pods on real ipvlan interfaces, behind the build tag ipvlan. A pod
// may be root in its network namespace and forge what it likes there. The package has only tests: what a single part promises is
// tested where the part is.
//
// The programs come from the folder MULTUS_VPC_BIN, or are built.
package socket
