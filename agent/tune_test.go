// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestTuneLeavesWhatIsSet(t *testing.T) {
	const own, untouched = 3, 123
	wasProcs, wasPercent, wasLimit := runtime.GOMAXPROCS(own), debug.SetGCPercent(untouched), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(wasProcs)
		debug.SetGCPercent(wasPercent)
		debug.SetMemoryLimit(wasLimit)
	})
	for _, tt := range []struct {
		name           string
		env            map[string]string
		procs, percent int
		limit          int64
	}{
		{"all set", map[string]string{"GOMAXPROCS": "3", "GOGC": "123", "GOMEMLIMIT": "off"}, own, untouched, wasLimit},
		{"GOMAXPROCS set", map[string]string{"GOMAXPROCS": "3"}, own, gcPercent, memoryLimit},
		{"nothing set", nil, processors, gcPercent, memoryLimit},
	} {
		tune(func(name string) string { return tt.env[name] })
		percent := debug.SetGCPercent(untouched) // tells what it was
		procs, limit := runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1)
		if procs != tt.procs || percent != tt.percent || limit != tt.limit {
			t.Errorf("%s: GOMAXPROCS %d, GOGC %d, GOMEMLIMIT %d; want %d, %d, %d", tt.name, procs, percent, limit, tt.procs, tt.percent, tt.limit)
		}
	}
}
