// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// plugins that the agent carries beside its own executable.
var plugins = []string{"vpcipam", "vpcipvlan"}

// install puts the plugins into dir, after the socket listens, so that a plugin never finds no agent because it came
// first. Each is written beside its place, synced and renamed: the runtime sees the old or the new one, never a part.
func install(dir string) error {
	if dir == "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the plugins beside the agent: %w", err)
	}
	for _, name := range plugins {
		if err := replace(filepath.Join(filepath.Dir(self), name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("install %s in --cni-bin-dir %s: %w", name, dir, err)
		}
	}
	return nil
}

func replace(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close(), os.Remove(out.Name()))
		}
	}()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if err := out.Chmod(0o755); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}
