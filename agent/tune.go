// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"runtime"
	"runtime/debug"
)

const (
	// processors is how many CPUs run Go code at a time. A request is tens of microseconds under one lock; on every CPU of
	// a large worker, waking idle ones to look for work would cost more than they find. The second one collects garbage.
	processors = 2
	// gcPercent lets a heap of a few MiB grow to some 16 MiB before it is collected: the default collects it at 4 MiB, ten
	// times in a burst of a hundred pods.
	gcPercent = 400
	// memoryLimit is where the larger heap ends to be worth it: with every address of the largest worker given out, the
	// agent needs a third of it. Beyond, the collector works more, and nothing fails.
	memoryLimit = 32 << 20
)

// tune fits the Go runtime to what the agent does: it sleeps, and then a hundred pods come at once. Who sets Go's own
// variables has the last word. https://pkg.go.dev/runtime#hdr-Environment_Variables
func tune(getenv func(string) string) {
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(processors, runtime.GOMAXPROCS(0)))
	}
	if getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
