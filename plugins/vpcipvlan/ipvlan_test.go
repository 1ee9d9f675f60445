// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package main

import (
	"testing"

	"github.com/multus-vpc/multus-vpc/plugins/internal/plugintest"
)

func TestScriptsWithIPVLAN(t *testing.T) { plugintest.Run(t, "testdata/ipvlan") }
