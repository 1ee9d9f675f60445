// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// compact replaces the file by what is live. The new file is on disk before it gets the name, so the name never leads to
// less than a whole ledger; when making it fails, the old file is in use as before.
func (l *Ledger) compact() error {
	data, err := l.state.write()
	if err != nil {
		return fmt.Errorf("rewrite ledger: %w", err)
	}
	f, err := l.writeTemp(data)
	if err != nil {
		return fmt.Errorf("rewrite ledger: %w", err)
	}
	if err = os.Rename(f.Name(), l.path(ledgerName)); err != nil {
		return fmt.Errorf("rewrite ledger: %w", errors.Join(err, f.Close(), os.Remove(f.Name())))
	}
	old := l.file
	l.file, l.size, l.torn = f, int64(len(data)), false
	if old != nil {
		err = old.Close()
	}
	// Without it a power loss could bring the old file back, whole but older.
	if err = errors.Join(err, l.syncDir()); err != nil {
		return fmt.Errorf("rewrite ledger: %w", err)
	}
	return nil
}

// writeTemp leaves a synced file beside the ledger, or none.
func (l *Ledger) writeTemp(data []byte) (f *os.File, err error) {
	f, err = os.OpenFile(l.path(tempName), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

func (l *Ledger) syncDir() error {
	d, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// reopen opens the file of the given length for appending and cuts off what a dying process left behind the good records.
func (l *Ledger) reopen(length int64) error {
	f, err := os.OpenFile(l.path(ledgerName), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	l.file = f
	if length > l.size {
		return f.Truncate(l.size)
	}
	return nil
}

// setAside moves the file away under its instance's name, never over an earlier one.
func (l *Ledger) setAside(instanceID string) (string, error) {
	name := ledgerName + "." + fileName(instanceID)
	for n := 2; ; n++ {
		// Link refuses an existing name, where Rename would replace it.
		err := os.Link(l.path(ledgerName), l.path(name))
		if err == nil {
			return l.path(name), os.Remove(l.path(ledgerName))
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("set the ledger of instance %q aside: %w", instanceID, err)
		}
		name = fmt.Sprintf("%s.%s.%d", ledgerName, fileName(instanceID), n)
	}
}

// keepCopy gives the damaged file a second name before it is rewritten; only the latest such file is kept.
func (l *Ledger) keepCopy() (string, error) {
	name := l.path(damagedName)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("keep a copy of the damaged ledger: %w", err)
	}
	if err := os.Link(l.path(ledgerName), name); err != nil {
		return "", fmt.Errorf("keep a copy of the damaged ledger: %w", err)
	}
	return name, nil
}

// fileName makes an instance ID fit for a file name, whatever the header said.
func fileName(instanceID string) string {
	if instanceID == "" {
		return orphanName
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '_'
	}, instanceID)
}
