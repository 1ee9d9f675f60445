//go:build ipvlan

// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

func TestTheDemoHolds(t *testing.T) {
	bin := os.Getenv("MULTUS_VPC_BIN")
	if bin == "" {
		t.Fatal("MULTUS_VPC_BIN must name the folder of the built programs: make build, and bin/")
	}
	var story bytes.Buffer
	status := run(t.Context(), []string{"demo", "--bin-dir", bin}, os.Getenv, strings.NewReader(""), io.MultiWriter(&story, t.Output()), t.Output())
	if status != exitOK {
		t.Errorf("exit status %d", status)
	}
	for _, step := range []string{"\n1. ", "\n2. ", "\n3. ", "\n4. ", "\n5. ", "\n6. "} {
		if !strings.Contains(story.String(), step) {
			t.Errorf("the story lacks step %q", strings.TrimSpace(step))
		}
	}
}
