// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chart

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	root      = "../.."
	chartDir  = root + "/charts/multus-vpc"
	namespace = "multus-vpc"
)

type object = map[string]any

// helm is the real one.
type helm struct {
	t       *testing.T
	program string
	env     []string
}

// newHelm returns Helm as somebody has it who never used it before. MULTUS_VPC_HELM is the folder of its program, or
// scripts/tools.sh builds it.
func newHelm(t *testing.T) *helm {
	t.Helper()
	dir := os.Getenv("MULTUS_VPC_HELM")
	if dir == "" {
		build := exec.Command("scripts/tools.sh", "test/chart/helm")
		build.Dir, build.Stderr = root, t.Output()
		out, err := build.Output()
		must(t, err)
		dir = strings.TrimSpace(string(out))
	}
	home := t.TempDir()
	env := []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	for _, name := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		env = append(env, name+"="+filepath.Join(home, name))
	}
	return &helm{t: t, program: filepath.Join(dir, "helm"), env: env}
}

// try runs Helm and returns what it printed.
func (h *helm) try(args ...string) (string, error) {
	cmd := exec.CommandContext(h.t.Context(), h.program, args...)
	cmd.Env = h.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.String(), nil
}

func (h *helm) must(args ...string) string {
	h.t.Helper()
	out, err := h.try(args...)
	must(h.t, err)
	return out
}

// render are the chart's objects, those for `helm test` included, by kind and name. Without values it takes the defaults.
func (h *helm) render(args ...string) map[string]object {
	h.t.Helper()
	if len(args) == 0 {
		args = []string{"--set=image.repository=multus-vpc"}
	}
	return objects(h.t, h.must(slices.Concat([]string{"template", "multus-vpc", chartDir, "--namespace", namespace}, args)...))
}

// objects are those of a YAML stream, by kind and name.
func objects(t *testing.T, stream string) map[string]object {
	t.Helper()
	all := map[string]object{}
	for document := range strings.SplitSeq("\n"+stream, "\n---\n") {
		var o object
		if err := yaml.UnmarshalStrict([]byte(document), &o); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		if o == nil {
			continue
		}
		name := o["kind"].(string) + " " + at(t, o, "metadata", "name").(string)
		if all[name] != nil {
			t.Errorf("there are two of %s", name)
		}
		all[name] = o
	}
	return all
}

// at follows keys and indices.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for i, step := range path {
		switch step := step.(type) {
		case string:
			o, ok := v.(object)
			if !ok || o[step] == nil {
				t.Fatalf("there is no %v", path[:i+1])
			}
			v = o[step]
		case int:
			v = v.([]any)[step]
		}
	}
	return v
}

// valueFiles are those of the chart's folder ci.
func valueFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(chartDir + "/ci/*-values.yaml")
	must(t, err)
	if len(files) < 4 {
		t.Fatalf("found only %v", files)
	}
	return files
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
