// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// scratch is a file in memory with a content, to be read from its start (memfd_create(2)). The caller closes it.
func scratch(content []byte) (_ *os.File, err error) {
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "bench")
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return nil, fmt.Errorf("write a file in memory: %w", err)
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}
