// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command entry says how it was started. It links the plugins' frame, and so has its entry.
package main

import (
	"encoding/json"
	"os"
	"runtime"

	"github.com/multus-vpc/multus-vpc/plugins/internal/process"
)

var _ process.Call

func main() {
	aux, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		os.Exit(1)
	}
	err = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"procs": runtime.GOMAXPROCS(0), "args": os.Args, "env": os.Environ(), "page": os.Getpagesize(), "aux": len(aux),
	})
	if err != nil {
		os.Exit(1)
	}
}
