// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// archive writes an initramfs: a cpio archive in the kernel's "newc" form
// (https://docs.kernel.org/driver-api/early-userspace/buffer-format.html). Parent folders are made as needed.
// The first error sticks and is returned by Close.
type archive struct {
	w     *bufio.Writer
	inode int
	size  int64
	made  map[string]bool
	err   error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriterSize(w, 1<<20), made: map[string]bool{".": true}}
}

// Dir adds a folder and those above it.
func (a *archive) Dir(name string) {
	name = strings.TrimPrefix(name, "/")
	if name == "" || a.made[name] {
		return
	}
	a.Dir(path.Dir(name))
	a.made[name] = true
	a.entry(name, unix.S_IFDIR|0o755, 0, 0, 0)
}

// Bytes adds a file with the given content.
func (a *archive) Bytes(name string, mode uint32, data []byte) {
	a.Dir(path.Dir(name))
	a.entry(name, unix.S_IFREG|mode, 0, 0, int64(len(data)))
	a.write(data)
	a.pad()
}

// File adds a copy of a file of this host.
func (a *archive) File(name string, mode uint32, source string) {
	if a.err != nil {
		return
	}
	data, err := os.ReadFile(source)
	if err != nil {
		a.err = err
		return
	}
	a.Bytes(name, mode, data)
}

// Link adds a symbolic link.
func (a *archive) Link(name, target string) {
	a.Dir(path.Dir(name))
	a.entry(name, unix.S_IFLNK|0o777, 0, 0, int64(len(target)))
	a.write([]byte(target))
	a.pad()
}

// CharDevice adds a character device. The Go runtime wants /dev/null before any mount is made.
func (a *archive) CharDevice(name string, mode, major, minor uint32) {
	a.Dir(path.Dir(name))
	a.entry(name, unix.S_IFCHR|mode, major, minor, 0)
}

// Close writes the trailer and returns the first error.
func (a *archive) Close() error {
	a.entry("TRAILER!!!", 0, 0, 0, 0)
	if a.err == nil {
		a.err = a.w.Flush()
	}
	return a.err
}

func (a *archive) entry(name string, mode, major, minor uint32, size int64) {
	name = strings.TrimPrefix(name, "/")
	a.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0)
	a.write([]byte(header))
	a.write(append([]byte(name), 0))
	a.pad()
}

func (a *archive) write(data []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(data)
	a.size += int64(n)
	a.err = err
}

// pad aligns to the four bytes that the format wants after each header and each content.
func (a *archive) pad() {
	a.write(make([]byte, -a.size&3))
}
