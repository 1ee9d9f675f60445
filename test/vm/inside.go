// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideArg as first argument of process 1 makes this executable the first process inside: in the virtual machine and
// in the namespaces alike.
const insideArg = "inside"

// job is what the outer process tells the inner one, as a JSON file.
type job struct {
	Argv    []string
	Dir     string
	Env     []string
	Machine bool     // in a virtual machine, whose file system is still empty
	Ship    []string // paths to bind from the payload disk to their own place
	Modules []string // kernel modules to load before the job; others load on demand
}

// Channels of the virtual machine: virtio serial ports, by number.
const (
	portStdout = 1
	portStderr = 2
	portStatus = 3
)

const payloadMount = "/payload"

// inside is process 1. It makes the machine usable, runs the job, reaps every orphan, and returns the job's status
// (in the virtual machine: reports it and powers off).
func inside(jobFile string) int {
	j, err := readJob(jobFile)
	if err != nil {
		return broken(err)
	}
	if !j.Machine {
		if err := prepareNamespaces(); err != nil {
			return broken(err)
		}
		status, err := supervise(j, os.Stdout, os.Stderr)
		if err != nil {
			return broken(err)
		}
		return status
	}
	defer powerOff() // a kernel whose first process exits panics; this is quieter
	if err := runInMachine(j); err != nil {
		broken(err)
	}
	return 0
}

func broken(err error) int {
	fmt.Fprintln(os.Stderr, "vm: inside:", err)
	return exitBroken
}

func readJob(file string) (job, error) {
	var j job
	data, err := os.ReadFile(file)
	if err != nil {
		return j, err
	}
	return j, json.Unmarshal(data, &j)
}

func runInMachine(j job) error {
	if err := prepareMachine(j); err != nil {
		return err
	}
	var ports [4]*os.File
	for n := portStdout; n <= portStatus; n++ {
		f, err := openPort(n)
		if err != nil {
			return err
		}
		ports[n] = f
	}
	status, err := supervise(j, ports[portStdout], ports[portStderr])
	if err != nil {
		fmt.Fprintln(ports[portStderr], "vm: inside:", err)
		status = exitBroken
	}
	// A write to a port returns once the host has taken it, so everything before this line has arrived.
	_, err = fmt.Fprintln(ports[portStatus], status)
	return err
}

// mount is one row of the tables below.
type mount struct {
	fstype, target, options string
}

// prepareNamespaces gives the job its own /proc, /sys and /run. The host's /run/netns and sockets stay out of reach.
func prepareNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := mountAll([]mount{{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"tmpfs", "/run", "mode=755"}}); err != nil {
		return err
	}
	return loopbackUp()
}

// prepareMachine turns the bare initramfs into a small Linux system with the payload at its paths.
func prepareMachine(j job) error {
	if err := mountAll([]mount{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", ""},
		{"tmpfs", "/dev/shm", ""},
		{"tmpfs", "/run", "mode=755"},
		{"tmpfs", "/tmp", "mode=1777"},
	}); err != nil {
		return err
	}
	if out, err := exec.Command("/sbin/modprobe", append([]string{"-a"}, j.Modules...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("modprobe %s: %w: %s", strings.Join(j.Modules, " "), err, out)
	}
	if err := awaitFile("/dev/vda"); err != nil {
		return err
	}
	if err := os.MkdirAll(payloadMount, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev/vda", payloadMount, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount the payload: %w", err)
	}
	for _, path := range j.Ship {
		if err := bind(filepath.Join(payloadMount, path), path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(j.Dir, 0o755); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("vm")); err != nil {
		return err
	}
	return loopbackUp()
}

func mountAll(table []mount) error {
	for _, m := range table {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// bind makes source appear at target, a folder or a file.
func bind(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var f *os.File
		if f, err = os.OpenFile(target, os.O_CREATE, 0o644); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", target, err)
	}
	return nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	return netlink.LinkSetUp(lo)
}

// openPort opens a virtio serial port; the kernel makes its file some moments after the module is loaded.
func openPort(n int) (*os.File, error) {
	path := fmt.Sprintf("/dev/vport1p%d", n)
	if matches, err := filepath.Glob(fmt.Sprintf("/dev/vport*p%d", n)); err == nil && len(matches) == 1 {
		path = matches[0]
	}
	if err := awaitFile(path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY, 0)
}

// awaitFile waits for a device file. Ten seconds are far beyond what an emulated bus needs.
func awaitFile(path string) error {
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("%s did not appear", path)
		}
	}
}

// supervise runs the job and, as process 1 must, waits for every process that ends. It returns the job's status as a
// shell would: 128 + the signal when one ended it.
func supervise(j job, stdout, stderr *os.File) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	process, err := os.StartProcess(j.Argv[0], j.Argv, &os.ProcAttr{
		Dir: j.Dir, Env: j.Env, Files: []*os.File{null, stdout, stderr},
	})
	if err != nil {
		return 0, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for %s: %w", j.Argv[0], err)
		case pid != process.Pid:
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

func powerOff() {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		broken(fmt.Errorf("power off: %w", err))
	}
}
