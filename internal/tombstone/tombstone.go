// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package tombstone keeps the word that an attachment was deleted while no agent listened: the plugins write one file
// per attachment, the agent reads them when it starts and before every ADD of the same attachment. A note is there
// whole or not at all, across crashes of the writer and of the machine; a second note about the same attachment
// replaces the first. What a note frees is decided by the agent.
package tombstone

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Note says that an attachment was deleted, and when.
type Note struct {
	attachment.Key
	Network string `json:"network"`
	Moment
}

// Moment is a point in time that no change of the wall clock moves. Moments of different boots are not comparable.
type Moment struct {
	// BootID is /proc/sys/kernel/random/boot_id.
	BootID string `json:"bootID"`
	// BootTime is CLOCK_BOOTTIME (clock_gettime(2)).
	BootTime time.Duration `json:"bootTime"`
}

// Now is the present [Moment].
func Now() (Moment, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Moment{}, err
	}
	up, err := Uptime()
	if err != nil {
		return Moment{}, err
	}
	return Moment{BootID: strings.TrimSpace(string(id)), BootTime: up}, nil
}

// Uptime is the BootTime of the present [Moment], for those who know the boot already.
func Uptime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// Dir is a folder of notes. It need not exist.
type Dir string

// suffix tells notes from files that are being written.
const suffix = ".json"

// path is the note's file. Container IDs are the runtime's, so their hash is the name.
func (d Dir) path(k attachment.Key) string {
	sum := sha256.Sum256([]byte(k.ContainerID + "\x00" + k.IfName))
	return filepath.Join(string(d), hex.EncodeToString(sum[:16])+suffix)
}

// Write leaves a note, on disk when it returns. A missing folder is made, with mode 0700.
func (d Dir) Write(n Note) (err error) {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if mkErr := os.MkdirAll(string(d), 0o700); mkErr != nil {
		return mkErr
	}
	f, err := os.CreateTemp(string(d), "writing-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(f.Name())))
		}
	}()
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), d.path(n.Key)); err != nil {
		return err
	}
	return d.sync()
}

// Find is the note about an attachment. A file that is no note counts as absent.
func (d Dir) Find(k attachment.Key) (Note, bool, error) {
	n, err := read(d.path(k))
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTorn):
		return Note{}, false, nil
	case err != nil:
		return Note{}, false, err
	}
	return n, n.Key == k, nil
}

// List is all notes, and the number of files that are none; a missing folder holds none. Files that a killed writer
// left behind do not count.
func (d Dir) List() (notes []Note, damaged int, err error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, 0, ignoreMissing(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != suffix {
			continue
		}
		n, readErr := read(filepath.Join(string(d), e.Name()))
		switch {
		case errors.Is(readErr, fs.ErrNotExist): // removed meanwhile
		case errors.Is(readErr, errTorn):
			damaged++
		case readErr != nil:
			return notes, damaged, readErr
		default:
			notes = append(notes, n)
		}
	}
	return notes, damaged, nil
}

// Remove takes the note about an attachment away; one that is not there is no error.
func (d Dir) Remove(k attachment.Key) error { return ignoreMissing(os.Remove(d.path(k))) }

// errTorn: the file is no note, as after a power loss on a file system that keeps names before content.
var errTorn = errors.New("not a tombstone")

func read(path string) (Note, error) {
	f, err := os.Open(path)
	if err != nil {
		return Note{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, longest+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return Note{}, err
	}
	n, err := parse(text)
	if err == nil && filepath.Base(path) != filepath.Base(Dir("").path(n.Key)) {
		err = errTorn // under another's name it could never be removed
	}
	return n, err
}

// longest bounds what is read of a file: a note has some 250 bytes.
const longest = 64 << 10

func parse(text []byte) (Note, error) {
	var n Note
	if len(text) > longest || json.Unmarshal(text, &n) != nil || n.ContainerID == "" || n.IfName == "" {
		return Note{}, errTorn
	}
	return n, nil
}

// sync makes the folder's names durable (fsync(2)).
func (d Dir) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
