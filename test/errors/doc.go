// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package errors shows what a user sees when something is wrong, one script in testdata/script for each cause: the CNI
// error code, a message that names the key or the limit and the remedy, and nothing left behind. Operators read the
// scripts, the tests run them with the real agent and plugins on a worker of the lab. They need root; no script gets as
// far as making a link, so any kernel will do. The package has only tests.
//
// The scripts' own commands, beside those of testscript:
//
//	lab [FILE]                     raise the lab of a scenario file, by default testdata/standard.yaml; all else is on worker-1
//	agent [FILE]                   start the agent with a --config file, and wait until it is ready
//	agent-of-version N             listen where the agent would, speaking version N of its protocol
//	pod NAME                       make a pod's network namespace
//	vpcipam COMMAND FILE POD IF    run the plugin as a container runtime does; also vpcipvlan
//	refused CODE PATTERN…          the plugin has just failed with this CNI code and a message that matches every pattern
//	settled                        wait until the agent waits for nothing from EC2
//	snapshot                       remember links, addresses, routes and rules of worker and pods, the agent's attachments,
//	                               EC2's addresses, and all files
//	unchanged                      compare with the snapshot
package errors
