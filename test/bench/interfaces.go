// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// Interface plugins are compared one call at a time, in small turns: processes start some thirty times slower in an
// emulated machine.
const interfaceRounds, interfaceBatch = 11, 3

// askVM runs this program where ipvlan works and returns the table that it makes there.
func askVM(ctx context.Context, o options, stderr io.Writer) (*table, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	rounds, batch := min(o.rounds, interfaceRounds), min(o.batch, interfaceBatch)
	cmd := exec.CommandContext(ctx, o.vm, "-cpus", "2", "-ship", o.bin, "-ship", o.peers,
		self, "-interfaces", "-bin", o.bin, "-peers", o.peers, "-stack=", "-rounds", strconv.Itoa(rounds), "-batch", strconv.Itoa(batch), "-parallel", "1")
	var stdout bytes.Buffer
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it has a machine to remove
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run where ipvlan works: %w", err)
	}
	t := &table{}
	if err := json.Unmarshal(stdout.Bytes(), t); err != nil {
		return nil, fmt.Errorf("read its table: %w: %q", err, &stdout)
	}
	return t, nil
}
