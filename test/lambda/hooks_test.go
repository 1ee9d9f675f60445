// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"fmt"
	"os"
	"testing"
)

// bootstrap is the program, once TestMain has built it.
var bootstrap string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "multus-vpc-lambda-")
	if err == nil {
		bootstrap, err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// both are the interfaces of every worker on the ground.
var both = []string{"0:1 n4 of tests", "0:2 n6 of tests"}

func TestWorkersComeAndGo(t *testing.T) {
	t.Parallel()
	g := newGround(t, "", nil)
	members := g.scale(3)
	g.want(members, both...)
	zones := map[string]bool{}
	for _, m := range members {
		zones[m.AZ] = true
	}
	if len(zones) != 2 {
		t.Errorf("all workers are in %v", zones)
	}
	g.want(g.scale(1), both...)
	g.await("five answers in the log", func() bool { return g.results()["CONTINUE"] == 5 })
	if n := g.count("CompleteLifecycleAction"); n != 5 {
		t.Errorf("%d answers", n)
	}
	if n := g.count("RecordLifecycleActionHeartbeat"); n < 3 {
		t.Errorf("%d heartbeats", n)
	}
}
