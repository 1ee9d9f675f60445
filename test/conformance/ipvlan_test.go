// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package main

import "testing"

// What others make of ipvlan is written down by make conformance, and not run here: a virtual machine takes minutes for it.
func TestWithIPVLAN(t *testing.T) {
	judgeAndCompare(t, func(b builtin) bool { return b.ipvlan && b.ours })
}
