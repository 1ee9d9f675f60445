// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// makePayload writes a disk image with the given files and folders at their own paths, plus room for what the program
// writes there. One way for every size: for a few megabytes it costs some 50 ms more than an appended archive, and for
// hundreds it saves the guest's memory.
func makePayload(ctx context.Context, image, staging string, paths []string) error {
	var bytes, count int64
	for _, path := range paths {
		err := filepath.WalkDir(path, func(source string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			count++
			size, err := stage(source, filepath.Join(staging, source), d)
			bytes += size
			return err
		})
		if err != nil {
			return fmt.Errorf("ship %s: %w", path, err)
		}
	}
	const spare = 64 << 20
	mb := (bytes+bytes/8+count*8192+spare)>>20 + 1
	return command(ctx, filepath.Dir(image), "mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0",
		"-b", "4096", "-N", strconv.FormatInt(count+4096, 10), "-d", staging, image, strconv.FormatInt(mb, 10)+"M")
}

// stage puts one file under the staging folder, by a hard link where that works. It returns the bytes it takes.
func stage(source, target string, d fs.DirEntry) (int64, error) {
	switch d.Type() {
	case fs.ModeDir:
		return 0, os.MkdirAll(target, 0o755)
	case fs.ModeSymlink:
		to, err := os.Readlink(source)
		if err != nil {
			return 0, err
		}
		return 0, os.Symlink(to, target)
	case 0:
	default:
		return 0, nil // sockets, devices: nothing that can be shipped
	}
	info, err := d.Info()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return 0, err
	}
	if err := os.Link(source, target); err == nil || errors.Is(err, fs.ErrExist) {
		return info.Size(), nil
	}
	return info.Size(), copyFile(source, target, info.Mode().Perm())
}

func copyFile(source, target string, mode fs.FileMode) (err error) {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// checkStatic refuses a program that needs shared libraries, which the machine does not have. Scripts pass.
func checkStatic(program string) error {
	f, err := elf.Open(program)
	if _, ok := errors.AsType[*elf.FormatError](err); ok {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is dynamically linked: build it with CGO_ENABLED=0", program)
		}
	}
	return nil
}
