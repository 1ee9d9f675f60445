// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package metadata

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// tree is everything that the service shows: full path → content. Directories are what lies between.
type tree map[string]string

// set shows the values, one on a line. A key without values does not exist.
func set[T any](t tree, path string, values ...T) {
	if len(values) == 0 {
		return
	}
	lines := make([]string, len(values))
	for i, v := range values {
		lines[i] = fmt.Sprint(v)
	}
	t[path] = strings.Join(lines, "\n")
}

// read returns the content of a key, or the list of a directory: its entries one on a line, those that are directories
// with a slash. A directory may be asked for with and without a slash at its end, a key only without.
func (t tree) read(path string) (string, bool) {
	if content, ok := t[path]; ok {
		return content, true
	}
	dir := strings.TrimSuffix(path, "/") + "/"
	entries := map[string]bool{}
	for key := range t {
		rest, ok := strings.CutPrefix(key, dir)
		if !ok {
			continue
		}
		name, _, isDir := strings.Cut(rest, "/")
		if isDir {
			name += "/"
		}
		entries[name] = true
	}
	if len(entries) == 0 {
		return "", false
	}
	return strings.Join(slices.Sorted(maps.Keys(entries)), "\n"), true
}
