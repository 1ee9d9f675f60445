// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chart

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheImageHasThePrograms: those that manifests start, those that the injector puts into pods, and the plugins that the agent installs;
// which are all that are not for a workbench.
func TestTheImageHasThePrograms(t *testing.T) {
	t.Parallel()
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	must(t, err)
	m := regexp.MustCompile(`DOORS="([^"]*)"`).FindSubmatch(dockerfile)
	if m == nil {
		t.Fatal("the Dockerfile names no programs")
	}
	var has []string
	for path := range strings.FieldsSeq(string(m[1])) {
		has = append(has, filepath.Base(path))
	}
	mains, err := filepath.Glob(root + "/*/main.go")
	must(t, err)
	plugins, err := filepath.Glob(root + "/plugins/*/main.go")
	must(t, err)
	var are []string
	for _, main := range append(mains, plugins...) {
		if name := filepath.Base(filepath.Dir(main)); name != "lambda" && name != "vpclab" {
			are = append(are, name)
		}
	}
	slices.Sort(has)
	slices.Sort(are)
	if diff := cmp.Diff(are, has); diff != "" {
		t.Errorf("programs (-tree +Dockerfile):\n%s", diff)
	}
	started := regexp.MustCompile(`(?:command: \[/|- /)([a-z]+)`).FindAllStringSubmatch(newHelm(t).must("template", "multus-vpc", chartDir, "--values", chartDir+"/ci/everything-values.yaml"), -1)
	if len(started) != 4 {
		t.Errorf("the manifests start %v, want agent, injector, sweep and the chart's test", started)
	}
	for _, m := range started {
		if !slices.Contains(has, m[1]) {
			t.Errorf("a manifest starts /%s, which the image does not have", m[1])
		}
	}
}

// TestImagesWithoutABuilder: make images says what it needs, and does nothing.
func TestImagesWithoutABuilder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ env, want string }{
		"no builder":  {"BUILDER=none", "no builder of images works on this machine"},
		"one of none": {"BUILDER=docker DOCKER_HOST=unix:///nowhere.sock", "apt-get install buildah"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "scripts/images.sh")
			cmd.Dir, cmd.Env = root, append(os.Environ(), strings.Fields(c.env)...)
			out, err := cmd.CombinedOutput()
			exit, _ := errors.AsType[*exec.ExitError](err)
			if exit == nil || exit.ExitCode() != 2 || !strings.Contains(string(out), c.want) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
