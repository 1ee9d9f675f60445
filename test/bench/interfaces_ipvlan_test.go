// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

func TestInterfacesAreCompared(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := []string{"-interfaces", "-stack=", "-rounds", "2", "-batch", "1", "-parallel", "1"}
	if code := run(t.Context(), args, os.Getenv, &stdout, &stderr); code != 0 {
		t.Fatalf("exit status %d: %s", code, &stderr)
	}
	var got table
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &stdout)
	}
	if len(got.Rows) != 2 || got.Reference != got.Rows[0].Plugin {
		t.Errorf("rows %+v, reference %q; want two, and the first", got.Rows, got.Reference)
	}
	for _, r := range got.Rows {
		if r.Calls != 4 || r.Failed != 0 || r.Left != 0 {
			t.Errorf("%s: %d calls, %d failed, %d addresses left; want 4, 0, 0 (%s)", r.Plugin, r.Calls, r.Failed, r.Left, got.Failures)
		}
	}
}
