// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chart

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// container is what a runtime is told of one: the least of its specification that these tests need. Image, seccomp and cgroup are left
// out. https://github.com/opencontainers/runtime-spec/blob/main/config.md
type container struct {
	Programs string // folder that stands for the image
	Root     string // an empty folder
	Mounts   []mount
	Capable  []string // all that it may
	Argv     []string
	Env      []string
}

type mount struct {
	From, At string // on the worker, in the container
	ReadOnly bool
	Slave    bool // HostToContainer: what is mounted below it later appears
}

// inside, in the environment, is the file of the container that this process is to become.
const inside = "MULTUS_VPC_TEST_CONTAINER"

func TestMain(m *testing.M) {
	if file := os.Getenv(inside); file != "" {
		fmt.Fprintln(os.Stderr, "container:", become(file)) // or does not return
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// command starts the container when it is started: in the network namespace of the thread that does so, for the pods of this chart
// that look at a worker are in its network, and in PID and mount namespaces of its own.
func (c container) command(t *testing.T) *exec.Cmd {
	t.Helper()
	spec, err := json.Marshal(c)
	must(t, err)
	file := filepath.Join(t.TempDir(), "container.json")
	must(t, os.WriteFile(file, spec, 0o600))
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = []string{inside + "=" + file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// become makes this process the container's.
func become(file string) error {
	runtime.LockOSThread() // what follows is the thread's, and so the process's that it executes
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c container
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	if err := errors.Join(c.mount(), unix.Chroot(c.Root), unix.Chdir("/")); err != nil {
		return err
	}
	for number := range uintptr(unix.CAP_LAST_CAP + 1) {
		if !slices.Contains(c.Capable, capabilities[number]) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0); err != nil {
				return err
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return syscall.Exec(c.Argv[0], c.Argv, c.Env) // as root: what is left of the bounding set is what it has
}

// capabilities that the chart may ask for, by number. https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/capability.h
var capabilities = map[uintptr]string{unix.CAP_NET_ADMIN: "NET_ADMIN", unix.CAP_SYS_ADMIN: "SYS_ADMIN", unix.CAP_SYS_PTRACE: "SYS_PTRACE"}

// mount makes the root's files.
func (c container) mount() error {
	at := func(path string) string { return filepath.Join(c.Root, path) }
	do := func(from, to, kind string, flags uintptr) error {
		if err := unix.Mount(from, to, kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", from, to, err)
		}
		return nil
	}
	errs := []error{do("", "/", "", unix.MS_REC|unix.MS_SLAVE), do("tmpfs", c.Root, "tmpfs", 0)}
	programs, err := os.ReadDir(c.Programs)
	errs = append(errs, err)
	for _, p := range programs {
		errs = append(errs, os.WriteFile(at(p.Name()), nil, 0o755), do(filepath.Join(c.Programs, p.Name()), at(p.Name()), "", unix.MS_BIND))
	}
	for _, m := range c.Mounts {
		errs = append(errs, os.MkdirAll(at(m.At), 0o755), do(m.From, at(m.At), "", unix.MS_BIND|unix.MS_REC))
		if !m.Slave {
			errs = append(errs, do("", at(m.At), "", unix.MS_PRIVATE))
		}
		if m.ReadOnly {
			errs = append(errs, do("", at(m.At), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY))
		}
	}
	return errors.Join(append(errs,
		os.MkdirAll(at("/proc"), 0o755), do("proc", at("/proc"), "proc", 0), do(at("/proc/sys"), at("/proc/sys"), "", unix.MS_BIND),
		do("", at("/proc/sys"), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY),
		do("", c.Root, "", unix.MS_REMOUNT|unix.MS_RDONLY))...)
}

// contain is the first container of a pod's specification. The folders of the worker are those that host says, and the variables those
// that need no API.
func contain(t *testing.T, programs string, spec object, host map[string]string) container {
	t.Helper()
	from := map[string]string{}
	for _, v := range at(t, spec, "volumes").([]any) {
		v := v.(object)
		path := "configMap"
		if _, ok := v["hostPath"]; ok {
			path = at(t, v, "hostPath", "path").(string)
		}
		if from[v["name"].(string)] = host[path]; host[path] == "" {
			t.Fatalf("the pod wants %s of the worker", path)
		}
	}
	inner := at(t, spec, "containers", 0).(object)
	c := container{Programs: programs, Root: t.TempDir()}
	for _, m := range inner["volumeMounts"].([]any) {
		m := m.(object)
		readOnly, _ := m["readOnly"].(bool)
		c.Mounts = append(c.Mounts, mount{From: from[m["name"].(string)], At: m["mountPath"].(string), ReadOnly: readOnly, Slave: m["mountPropagation"] == "HostToContainer"})
	}
	security := inner["securityContext"].(object)
	if security["privileged"] != nil || security["readOnlyRootFilesystem"] != true || security["allowPrivilegeEscalation"] != false || at(t, security, "capabilities", "drop", 0) != "ALL" {
		t.Errorf("the container is not confined as these tests run it: %v", security)
	}
	if add, ok := at(t, security, "capabilities").(object)["add"]; ok {
		c.Capable = texts(add)
	}
	c.Argv = texts(inner["command"])
	if inner["args"] != nil {
		c.Argv = append(c.Argv, texts(inner["args"])...)
	}
	env, _ := inner["env"].([]any)
	for _, e := range env {
		if value, ok := e.(object)["value"].(string); ok {
			c.Env = append(c.Env, e.(object)["name"].(string)+"="+value)
		}
	}
	return c
}

func texts(list any) (all []string) {
	for _, v := range list.([]any) {
		all = append(all, v.(string))
	}
	return all
}

// build are our programs as the image has them, in a folder: those of MULTUS_VPC_BIN, or new ones.
func build(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("MULTUS_VPC_BIN"); bin != "" {
		return bin
	}
	dir := t.TempDir()
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	must(t, err)
	_, list, _ := strings.Cut(string(dockerfile), `DOORS="`)
	list, _, _ = strings.Cut(list, `"`)
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", dir + "/"}, strings.Fields(list))...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}
