// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"testing"

	"github.com/multus-vpc/multus-vpc/plugins/internal/plugintest"
)

func TestMain(m *testing.M) { plugintest.Main(m, map[string]func(){"vpcipvlan": main}) }

func TestScripts(t *testing.T) { plugintest.Run(t, "testdata") }
