// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// buildRunner builds vm as the Makefile does: static, since it is also the first process inside.
func buildRunner(t *testing.T) string {
	t.Helper()
	runner := filepath.Join(t.TempDir(), "vm")
	build := exec.Command("go", "build", "-o", runner, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return runner
}

func TestMachineRunsAProgramAsThisHostWould(t *testing.T) {
	t.Parallel()
	runner := buildRunner(t)
	busybox, err := findBusybox()
	if err != nil {
		t.Fatal(err)
	}
	shipped := filepath.Join(t.TempDir(), "folder with space")
	if err = os.MkdirAll(shipped, 0o755); err != nil {
		t.Fatal(err)
	}
	if err = os.WriteFile(filepath.Join(shipped, "note"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `pwd; cat "$1/note"; echo "$MULTUS_VPC_QUOTES"; echo to stderr >&2; ip link add p0 type veth peer name p1 && echo veth; exit 7`
	cmd := exec.Command(runner, "-in", "vm", "-ship", shipped, busybox, "sh", "-c", script, "sh", shipped)
	cmd.Env = append(os.Environ(), `MULTUS_VPC_QUOTES=it's "quoted" $HOME`)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err = cmd.Run(); cmd.ProcessState.ExitCode() != 7 {
		t.Fatalf("exit status: got %v, want 7\n%s", err, &stderr)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := dir + "\nfrom the host\nit's \"quoted\" $HOME\nveth\n"
	if diff := cmp.Diff(want, stdout.String()); diff != "" {
		t.Errorf("stdout (-want +got):\n%s", diff)
	}
	if !strings.Contains(stderr.String(), "\nto stderr\n") || !strings.Contains(stderr.String(), "virtual machine, Linux ") {
		t.Errorf("stderr: %s", &stderr)
	}
}

func TestBrokenMachineIsNotAResult(t *testing.T) {
	t.Parallel()
	runner := buildRunner(t)
	busybox, err := findBusybox()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, script, timeout, want string }{
		{"panic", "echo c > /proc/sysrq-trigger", "2m", "sysrq triggered crash"},
		{"hang", "sleep 1000", "8s", "not finished within 8s"},
		{"powered off under the program", "echo o > /proc/sysrq-trigger; sleep 1000", "2m", "without the program's status"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(runner, "-in", "vm", "-timeout", test.timeout, busybox, "sh", "-c", test.script)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != exitBroken {
				t.Errorf("exit status: got %v, want %d", err, exitBroken)
			}
			if !strings.Contains(string(out), test.want) {
				t.Errorf("output lacks %q:\n%s", test.want, out)
			}
		})
	}
}

// TestNamespacesHideTheHost needs root but no ipvlan.
func TestNamespacesHideTheHost(t *testing.T) {
	t.Parallel()
	runner := buildRunner(t)
	busybox, err := findBusybox()
	if err != nil {
		t.Fatal(err)
	}
	script := `echo $$; ls /run; ip -o link | wc -l; sleep 1000 & exit 9`
	cmd := exec.Command(runner, "-in", "host", busybox, "sh", "-c", script)
	out, err := cmd.Output()
	if cmd.ProcessState.ExitCode() != 9 {
		t.Fatalf("exit status: got %v, want 9", err)
	}
	// The kernel may add fallback tunnels to each new namespace (net.core.fb_tunnels_only_for_init_net), so lo is not
	// asserted to be alone; /run must be empty and the job the second process.
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 {
		t.Fatalf("/run is not empty or a line is missing: %q", lines)
	}
	if pid := lines[0]; len(pid) > 1 {
		t.Errorf("process ID inside: got %s, want that of a new process namespace", pid)
	}
}

func TestEnvironmentPassesWhatMayMatter(t *testing.T) {
	got := environment([]string{"HOME=/home/x", "PATH=/x", "MULTUS_VPC_BIN=/b", "AWS_PROFILE=p", "GOMAXPROCS=2", "ASKED=1", "GOPATH=/g"}, []string{"ASKED", "SET=a=b"})
	got = got[3:] // PATH, HOME, TMPDIR
	want := []string{"MULTUS_VPC_BIN=/b", "GOMAXPROCS=2", "ASKED=1", "SET=a=b"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	static, err := findBusybox()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"no program", nil, "no program"},
		{"unknown place", []string{"-in", "cloud", static}, "want auto, host or vm"},
		{"missing program", []string{"/nonexistent"}, "no such file"},
		{"missing payload", []string{"-ship", "/nonexistent", static}, "ship /nonexistent"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parse(test.args, nil, &bytes.Buffer{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestDynamicProgramIsRefused(t *testing.T) {
	if err := checkStatic("/bin/sh"); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("/bin/sh: got %v, want an error with the remedy", err)
	}
	busybox, err := findBusybox()
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{busybox, "main.go"} {
		if err := checkStatic(program); err != nil {
			t.Errorf("%s: %v", program, err)
		}
	}
}

func TestPickTakesModulesWithTheirDependencies(t *testing.T) {
	dep := `kernel/a/virtio_pci.ko.xz: kernel/a/virtio.ko.xz
kernel/a/virtio.ko.xz:
kernel/a/virtio_blk.ko.xz: kernel/a/virtio.ko.xz
kernel/b/ipvlan.ko.xz:
kernel/b/veth.ko.xz:
kernel/c/act-mirred.ko.xz:
kernel/d/sound.ko.xz:
`
	alias := "# comment\nalias rtnl-link-ipvlan ipvlan\nalias snd-card-* sound\n"
	tree, err := pick(dep, alias, "kernel/drivers/char/virtio_console.ko\n")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(tree.files)
	want := []string{
		"kernel/a/virtio.ko.xz", "kernel/a/virtio_blk.ko.xz", "kernel/a/virtio_pci.ko.xz", "kernel/b/ipvlan.ko.xz",
		"kernel/b/veth.ko.xz", "kernel/c/act-mirred.ko.xz",
	}
	if diff := cmp.Diff(want, tree.files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("alias rtnl-link-ipvlan ipvlan\n", string(tree.alias)); diff != "" {
		t.Errorf("aliases (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"virtio_pci", "virtio_blk", "ipvlan", "veth"}, tree.load); diff != "" {
		t.Errorf("built-in modules need no loading (-want +got):\n%s", diff)
	}
	if _, err := pick("kernel/b/veth.ko:\n", "", ""); err == nil || !strings.Contains(err.Error(), "no ipvlan") {
		t.Errorf("kernel without ipvlan: got %v", err)
	}
}

func TestFolderWithoutIndexIsCopiedNotTouched(t *testing.T) {
	cache := cacheDir(os.Getenv)
	var stderr bytes.Buffer
	k, err := findKernel(t.Context(), defaultKernel, cache, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for _, dir := range []string{"boot", "lib/modules"} {
		if err = os.MkdirAll(filepath.Join(folder, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err = os.Symlink(k.image, filepath.Join(folder, "boot", filepath.Base(k.image))); err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(folder, "lib/modules", k.version)
	if err = os.CopyFS(bare, os.DirFS(k.modules)); err != nil {
		t.Fatal(err)
	}
	indexes, err := filepath.Glob(filepath.Join(bare, "modules.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range indexes {
		if base := filepath.Base(index); base != "modules.builtin" && base != "modules.order" {
			if err = os.Remove(index); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := findKernel(t.Context(), folder, t.TempDir(), &stderr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := selectModules(got); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(bare, "modules.dep")); err == nil {
		t.Error("the user's folder was written to")
	}
}

func TestArchiveIsReadByCpio(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	a := newArchive(&buf)
	a.Bytes("etc/deep/odd", 0o644, []byte("odd"))
	a.Link("bin/sh", "/bin/busybox")
	a.Dir("etc")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("busybox", "cpio", "-idv")
	cmd.Dir, cmd.Stdin = dir, &buf
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "etc/deep/odd"))
	if err != nil || string(data) != "odd" {
		t.Errorf("content: %q, %v", data, err)
	}
	if target, err := os.Readlink(filepath.Join(dir, "bin/sh")); err != nil || target != "/bin/busybox" {
		t.Errorf("link: %q, %v", target, err)
	}
}
