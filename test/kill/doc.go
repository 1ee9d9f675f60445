// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package kill kills the agent and the plugins (SIGKILL) at chosen points of their work, under load, and asks the
// kernel and EC2 whether anything was lost, given twice or left behind. Real processes run in the lab's network
// namespaces, with a runtime that follows the CNI contract after a call that failed; the points before and after an
// EC2 call are exact, because the tests stand before the endpoint. On every kernel the plugin is vpcipam, with
// interfaces made by the tests; behind the build tag ipvlan it is vpcipvlan. The package has only tests: what they
// prove about single components belongs to these components' packages.
//
// The programs come from the folder MULTUS_VPC_BIN, or are built. MULTUS_VPC_SEED repeats a schedule.
package kill
