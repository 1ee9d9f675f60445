// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package life follows attachments from ADD to the end, with the real agent and plugins on a worker of the lab: lost
// DELs, namespaces that are made again at the same path, agents that were away, killed or are one too many, and links
// that nobody brought up. The kernel, EC2 and the agent's status are asked what became of the address. The tests need
// root; behind the build tag ipvlan are those with vpcipvlan's links. The package has only tests.
package life
