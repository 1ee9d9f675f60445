// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// TombstoneDir is the folder beside the socket in which plugins leave word for an agent that is away.
const TombstoneDir = "deleted"

// Listen makes the agent's socket at path, mode 0600 in a directory of mode 0700. A socket file that nobody listens on
// is removed; a living one, or a directory that holds anything that is not ours, is an error. The socket file goes when
// the listener is closed.
func Listen(path string) (net.Listener, error) {
	if err := private(filepath.Dir(path), filepath.Base(path)); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("close the socket to others: %w", err), ln.Close())
	}
	return ln, nil
}

// private makes dir with mode 0700. An existing directory is tightened only when nothing lies in it but the socket and
// the tombstones: kubelet makes hostPath directories with mode 0755, while /run or /tmp must be left as they are.
func private(dir, socket string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make the directory above the socket's: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != socket && e.Name() != TombstoneDir {
			return fmt.Errorf("directory %s is open to others (mode %04o) and holds %s; choose a directory for the socket alone",
				dir, info.Mode().Perm(), e.Name())
		}
	}
	return os.Chmod(dir, 0o700)
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("another agent listens on %s", path), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("see whether an agent listens on %s: %w", path, err)
	}
	return os.Remove(path)
}
