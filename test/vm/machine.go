// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How the machine's processors run.
const (
	accelKVM = "kvm"
	accelTCG = "tcg,thread=multi" // software emulation: everywhere, about ten times slower
)

// cmdline: the kernel speaks to the console file only, and a panic ends QEMU at once (with -no-reboot). no_timer_check: on
// a busy host an emulated timer ticks too late for the kernel's test of it, which then panics.
const cmdline = "console=ttyS0 loglevel=4 panic=-1 oops=panic no_timer_check mitigations=off rdinit=/init -- " + insideArg + " /job.json"

// runMachine boots the kernel with the job and returns the job's status. Without a status (panic, hang, out of memory)
// it returns an error that quotes the end of the console.
func runMachine(ctx context.Context, c config, k kernel, accel string, stdout, stderr io.Writer) (status int, err error) {
	start := time.Now()
	dir, err := os.MkdirTemp("", "multus-vpc-vm-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	staging := filepath.Join(dir, "payload")
	if err = os.Mkdir(staging, 0o755); err != nil {
		return 0, err
	}
	if err = makePayload(ctx, filepath.Join(dir, "payload.img"), staging, c.ship); err != nil {
		return 0, err
	}
	if err = makeInitramfs(filepath.Join(dir, "initramfs"), c, k); err != nil {
		return 0, err
	}
	prepared := time.Now()

	answer, err := qemu(ctx, c, k, accel, dir, stdout, stderr)
	if c.verbose {
		fmt.Fprintf(stderr, "vm: prepared in %v, ran for %v\n", prepared.Sub(start).Round(time.Millisecond), time.Since(prepared).Round(time.Millisecond))
	}
	if status, parseErr := strconv.Atoi(strings.TrimSpace(answer)); parseErr == nil {
		return status, nil
	}
	why := "the machine ended without the program's status (panic, or out of memory)"
	if cause := context.Cause(ctx); cause != nil {
		why, err = "the machine was stopped", cause
	}
	if err != nil {
		why += ": " + err.Error()
	}
	return 0, fmt.Errorf("%s; its console ended with:\n%s", why, tail(filepath.Join(dir, "console"), 80))
}

// qemu runs the virtual machine until it powers off. Its three serial ports write to three pipes of ours.
func qemu(ctx context.Context, c config, k kernel, accel, dir string, stdout, stderr io.Writer) (answer string, err error) {
	args := []string{
		"-M", "q35", "-accel", accel, "-cpu", "max", "-smp", strconv.Itoa(c.cpus), "-m", strconv.Itoa(c.memoryMB),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", k.image, "-initrd", filepath.Join(dir, "initramfs"), "-append", cmdline,
		"-serial", "file:" + filepath.Join(dir, "console"),
		"-drive", "if=none,id=payload,format=raw,cache=unsafe,file=" + filepath.Join(dir, "payload.img"),
		"-device", "virtio-blk-pci,drive=payload",
		"-device", "virtio-serial-pci",
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64")
	var answered bytes.Buffer
	var copies sync.WaitGroup
	for i, sink := range []io.Writer{stdout, stderr, &answered} {
		r, w, pipeErr := os.Pipe()
		if pipeErr != nil {
			return "", pipeErr
		}
		defer w.Close()
		copies.Go(func() {
			defer r.Close()
			if _, copyErr := io.Copy(sink, r); copyErr != nil {
				fmt.Fprintln(stderr, "vm: output:", copyErr)
			}
		})
		cmd.ExtraFiles = append(cmd.ExtraFiles, w)
		n := strconv.Itoa(i + 1)
		args = append(args,
			"-add-fd", "set="+n+",fd="+strconv.Itoa(3+i),
			"-chardev", "file,id=port"+n+",append=on,path=/dev/fdset/"+n,
			"-device", "virtserialport,nr="+n+",chardev=port"+n)
	}
	cmd.Args = append(cmd.Args, args...)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is the death of the thread that started the child
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	for _, w := range cmd.ExtraFiles {
		err = errors.Join(err, w.Close())
	}
	if cmd.Process != nil {
		err = errors.Join(err, cmd.Wait())
	}
	copies.Wait()
	return answered.String(), err
}

// makeInitramfs writes the guest's first file system: this executable as /init, BusyBox, the modules and the job.
func makeInitramfs(file string, c config, k kernel) (err error) {
	tree, err := selectModules(k)
	if err != nil {
		return fmt.Errorf("%s: %w", k.modules, err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	busybox, err := findBusybox()
	if err != nil {
		return err
	}
	if err = errors.Join(checkStatic(self), checkStatic(busybox)); err != nil {
		return err
	}
	data, err := json.Marshal(job{Argv: c.argv, Dir: c.dir, Env: c.env, Machine: true, Ship: c.ship, Modules: tree.load})
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	a := newArchive(f)
	a.CharDevice("dev/console", 0o600, 5, 1)
	a.CharDevice("dev/null", 0o666, 1, 3)
	a.File("init", 0o755, self)
	a.Bytes("job.json", 0o600, data)
	a.File("bin/busybox", 0o755, busybox)
	for _, applet := range applets {
		a.Link(applet, "/bin/busybox")
	}
	a.Dir("root")
	a.Bytes("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	a.Bytes("etc/group", 0o644, []byte("root:x:0:\n"))
	a.Bytes("etc/hosts", 0o644, []byte("127.0.0.1 localhost vm\n::1 localhost\n"))
	base := "lib/modules/" + k.version + "/"
	for _, m := range tree.files {
		a.File(base+m, 0o644, filepath.Join(k.modules, m))
	}
	a.Bytes(base+"modules.dep", 0o644, tree.dep)
	a.Bytes(base+"modules.alias", 0o644, tree.alias)
	a.Bytes(base+"modules.symbols", 0o644, nil)
	return a.Close()
}

// applets of BusyBox in the guest: what modprobe and small shell jobs need.
var applets = []string{
	"sbin/modprobe", "bin/sh", "bin/cat", "bin/chmod", "bin/cp", "bin/date", "bin/df", "bin/dmesg", "bin/echo", "bin/env", "bin/false",
	"bin/find", "bin/free", "bin/grep", "bin/head", "bin/hostname", "bin/ip", "bin/kill", "bin/ln", "bin/ls", "bin/lsmod", "bin/mkdir",
	"bin/mount", "bin/mv", "bin/nsenter", "bin/ping", "bin/ps", "bin/readlink", "bin/rm", "bin/sed", "bin/sleep", "bin/stat", "bin/sync", "bin/sysctl",
	"bin/tail", "bin/test", "bin/time", "bin/top", "bin/touch", "bin/true", "bin/umount", "bin/uname", "bin/unshare", "bin/wc", "bin/wget", "bin/xargs",
}

func findBusybox() (string, error) {
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox", "/usr/sbin/busybox.static", "/usr/bin/busybox.static"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no static busybox on this host (Debian: apt-get install busybox-static)")
}

func tail(file string, lines int) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	all := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(data), "\r", "")), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
