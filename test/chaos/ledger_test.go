// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/ledger"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// bookDiffers says where the ledger's file differs from EC2 and from the pods there are. It reads a copy, as the next
// agent would read the file.
func (w *node) bookDiffers(live []*stage.Sandbox) (string, error) {
	var want []string
	for _, a := range w.inEC2() {
		want = append(want, fmt.Sprintf("address/%s/%s", w.eni, a))
	}
	for _, s := range live {
		want = append(want, fmt.Sprintf("hold/%s/%s", s.ID, stage.IfName))
	}
	slices.Sort(want)
	got, err := w.book()
	if err != nil {
		return "", err
	}
	return cmp.Diff(want, got), nil
}

// book lists the keys of the ledger that say what belongs to whom.
func (w *node) book() (keys []string, err error) {
	dir, err := os.MkdirTemp(w.dir, "book-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	text, err := os.ReadFile(w.agent.Ledger())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ledger"), text, 0o600)
	}
	if err != nil {
		return nil, err
	}
	boot, err := os.ReadFile(w.bootFile())
	if err != nil {
		return nil, err
	}
	book, found, err := ledger.Open(dir, ledger.Identity{InstanceID: w.instance, BootID: strings.TrimSpace(string(boot))})
	if err != nil {
		return nil, err
	}
	if err = book.Close(); err != nil {
		return nil, err
	}
	if found.SetAside != "" || found.Damaged > 0 {
		return nil, fmt.Errorf("the ledger is not whole: %d damaged, set aside %q", found.Damaged, found.SetAside)
	}
	for _, key := range slices.Sorted(maps.Keys(found.Entries)) {
		if !strings.HasPrefix(key, "active/") {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// grumble lists what agents have said that none may say: that their own state makes no sense, or that they broke.
func (w *node) grumble() (lines []string) {
	log, err := os.ReadFile(w.agent.LogFile())
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(log)) {
		for _, never := range []string{"makes no sense", "panic:", "DATA RACE", "fatal error:"} {
			if strings.Contains(line, never) {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return lines
}
