// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/story"
)

const demoHelp = `Tell the story of the suite on this machine: workers, their ENIs, ipvlan pods, and packets that
flow exactly when EC2 knows the address. Real agents, plugins, init containers and sidecars run; the VPC
around them is the lab's.

Every line is an assertion with what was measured. The exit status is 1 when one of them is false.

It needs root and a kernel with ipvlan; "make demo" takes a virtual machine where there is none.`

func (d *door) demoCommand() *cobra.Command {
	var binDir string
	c := &cobra.Command{
		Use:   "demo [--bin-dir FOLDER]",
		Short: "Tell the story of the suite, each line an assertion",
		Long:  demoHelp,
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needRoot(c, "make demo needs none: it takes a virtual machine"); err != nil {
				return err
			}
			folder, err := programs(binDir)
			if err != nil {
				return err
			}
			return story.Tell(c.Context(), story.Config{
				Out: d.stdout, Terminal: d.onTerminal(), BinDir: folder,
				Prefix: "vpclab-" + strconv.Itoa(os.Getpid()),
			})
		},
	}
	c.Flags().StringVar(&binDir, "bin-dir", "", "folder of the programs that it runs (default: where vpclab itself lies)")
	return c
}

// programs returns the folder of the programs that the story runs, and refuses one that lacks any.
func programs(dir string) (string, error) {
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find the folder of vpclab: %w", err)
		}
		dir = filepath.Dir(self)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"agent", "initcontainer", "sidecar", "vpcipam", "vpcipvlan"} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			return "", &usageError{
				err:   fmt.Errorf("%s has no %s", dir, name),
				hints: []string{"make build puts all programs into bin/; --bin-dir names another folder"},
			}
		} else if err != nil {
			return "", err
		}
	}
	return dir, nil
}

// onTerminal reports whether stdout understands escape codes. CLICOLOR_FORCE says so where a pipe leads to a terminal.
// https://no-color.org, https://bixense.com/clicolors/
func (d *door) onTerminal() bool {
	if d.getenv("NO_COLOR") != "" || d.getenv("CLICOLOR_FORCE") != "" {
		return d.getenv("NO_COLOR") == ""
	}
	f, ok := d.stdout.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
