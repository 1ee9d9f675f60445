// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workers

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	story "github.com/multus-vpc/multus-vpc/internal/lab/workers"
)

// templates is the folder of what is deployed.
const templates = "../../cfn"

// pack builds the function for this machine as lambda/pack does, and returns the zip.
func pack(dir string) (string, error) {
	program := filepath.Join(dir, "bootstrap")
	cmd := exec.Command("go", "build", "-trimpath", "-tags=lambda.norpc", "-ldflags=-s -w", "-o", program, "github.com/multus-vpc/multus-vpc/lambda")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	code, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	header := &zip.FileHeader{Name: "bootstrap", Method: zip.Store}
	header.SetMode(0o755)
	f, err := w.CreateHeader(header)
	if err != nil {
		return "", err
	}
	if _, err = f.Write(code); err != nil {
		return "", err
	}
	if err = w.Close(); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "lambda.zip")
	return path, os.WriteFile(path, packed.Bytes(), 0o644)
}

// function is the zip, made once in a folder of the first test that asks.
var function = sync.OnceValues(func() (string, error) { return pack(workDir) })

var workDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "multus-vpc-workers-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }() // the tests are over
		workDir = dir
		return m.Run()
	}())
}

// tell tells the story of the templates in a folder.
func tell(ctx context.Context, t *testing.T, folder string, patience time.Duration, out io.Writer) error {
	t.Helper()
	zipped, err := function()
	if err != nil {
		t.Fatal(err)
	}
	return story.Tell(ctx, story.Config{
		Out: io.MultiWriter(out, t.Output()), Templates: folder, Package: zipped, Patience: patience,
		Architecture: map[string]string{"amd64": "x86_64", "arm64": "arm64"}[runtime.GOARCH],
	})
}

func TestTheStoryHolds(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := tell(t.Context(), t, templates, 2*time.Minute, &out); err != nil {
		t.Error(err)
	}
	for n := 1; n <= 7; n++ {
		if step := fmt.Sprintf("\n%d. ", n); !strings.Contains(out.String(), step) {
			t.Errorf("the story lacks step %d", n)
		}
	}
}

// TestTheStoryNoticesFaultsOfTheTemplates changes one thing in a template at a time.
func TestTheStoryNoticesFaultsOfTheTemplates(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, old, new string
		noticed        string // of the line that has to fail
	}{
		{"no hook at the launch", "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING", "exactly the planned ENIs"},
		{"the role may not attach", "            - ec2:AttachNetworkInterface\n", "", "the group goes from 0 to 3"},
		{"the role deletes everybody's ENIs", "            Condition:\n              StringEquals: {aws:ResourceTag/multus-vpc.io/owner: !Sub \"${ClusterName}-${NodeGroupName}\"}\n", "", "role allows what the function does"},
		{"another stock", "Stock: !Ref InterfaceStock", "Stock: \"3\"", "exactly the planned ENIs"},
		{"tags left out", "          ENITags: !Ref InterfaceTags\n", "", "exactly the planned ENIs"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			folder := broken(t, tc.old, tc.new)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			out := &untilFailure{stop: stop}
			if err := tell(ctx, t, folder, 10*time.Second, out); err == nil {
				t.Fatal("the story holds")
			}
			if !strings.Contains(out.failed, tc.noticed) {
				t.Errorf("the first line that fails is %q, want that with %q", out.failed, tc.noticed)
			}
		})
	}
}

// untilFailure ends a story at its first line that fails.
type untilFailure struct {
	stop   func()
	failed string
}

func (u *untilFailure) Write(p []byte) (int, error) {
	if u.failed == "" && strings.Contains(string(p), "✗") {
		u.failed = string(p)
		u.stop()
	}
	return len(p), nil
}

// broken is a copy of the templates with every occurrence of a text of the node group's replaced.
func broken(t *testing.T, old, replacement string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(templates)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "multus-node-group.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("stale: the template has no %q", old)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, replacement)), 0o644); err != nil {
		t.Fatal(err)
	}
	return folder
}
