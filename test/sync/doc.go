// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package sync holds what users of upstream ipvlan and another IPAM see of the whole: a real API server, real Multus (thin, and
// thick with its shim and daemon) and real whereabouts on two workers of the lab, and in their pods the real init container and
// sidecar, behind the build tag ipvlan. It holds which pods reach which before and after their addresses are registered, where a
// floating address is at every moment of its moves, and what becomes of two pods that have the same. The package has only
// tests: what a single part promises is tested where the part is.
//
// The programs come from the folders MULTUS_VPC_BIN (this project's), MULTUS_VPC_PEERS (cnitool and the reference plugins) and
// MULTUS_VPC_STACK (etcd, kube-apiserver, Multus, whereabouts).
package sync
