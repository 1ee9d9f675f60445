// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"maps"
	"slices"
)

// Actions returns the names of everything that the API does, sorted.
func Actions() []string { return slices.Sorted(maps.Keys(actions())) }
