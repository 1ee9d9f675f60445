// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build linux && (amd64 || arm64)

package process

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// started is what testdata/entry says of itself.
type started struct {
	Procs, Page, Aux int
	Args, Env        []string
}

func TestEntryAddsOneVariableAndChangesNothingElse(t *testing.T) {
	dir := t.TempDir()
	build := func(name, flags string) string {
		t.Helper()
		program := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-ldflags="+flags, "-o", program, "./testdata/entry")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return program
	}
	plain, one := build("plain", ""), build("one", "-E multus_vpc_entry")
	run := func(program string, args, env []string) (s started) {
		t.Helper()
		cmd := &exec.Cmd{Path: program, Args: append([]string{"program"}, args...), Env: env}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s with %q and %q: %v", program, args, env, err)
		}
		if err := json.Unmarshal(out, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	// Odd and even numbers of words on the stack, few and many.
	for _, args := range [][]string{nil, {"a"}, {"a", ""}, slices.Repeat([]string{"long"}, 1000)} {
		for _, n := range []int{0, 1, 2, 3, 1000} {
			env := []string{}
			for i := range n {
				env = append(env, fmt.Sprintf("V%d=%s", i, strings.Repeat("x", i)))
			}
			want, got := run(plain, args, env), run(one, args, env)
			if got.Procs != 1 {
				t.Errorf("GOMAXPROCS is %d", got.Procs)
			}
			want.Env, want.Procs = append(want.Env, "GOMAXPROCS=1"), 1
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%d arguments, %d variables (-plain +entry):\n%s", len(args), n, diff)
			}
		}
	}
	if got := run(one, nil, []string{"GOMAXPROCS=2"}); got.Procs != 2 {
		t.Errorf("GOMAXPROCS of the environment was overridden by %d", got.Procs)
	}
}
