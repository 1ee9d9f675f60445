// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package stage is what tests stand on that kill and break real programs: a worker as its processes see it ([Place]), the
// way in which pods get their interface ([Wiring]), and a look at what the VPC's kernel does ([Routes]). test/kill and
// test/chaos use it. It starts no program and judges nothing: which programs run, what befalls them and what must hold
// afterwards is the tests' affair.
//
// A test program that uses it locks its main goroutine to the first thread in TestMain: /proc/PID/ns shows that thread's
// namespaces, and an agent that looks there must not find the pods of another worker because a goroutine is visiting
// them.
package stage
