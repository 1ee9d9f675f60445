// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// probe reports why this host cannot run ipvlan jobs itself, or nil. It makes a real ipvlan child in a network
// namespace that vanishes with the thread that made it: a module list would not know of missing privileges.
func probe() error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		result <- makeIPVlan()
	}()
	return <-result
}

func makeIPVlan() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("no network namespaces: %w", err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, PeerName: "probe1"}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("no veth: %w", err)
	}
	master, err := netlink.LinkByName("probe0")
	if err != nil {
		return err
	}
	child := &netlink.IPVlan{
		LinkAttrs: netlink.LinkAttrs{Name: "probe2", ParentIndex: master.Attrs().Index},
		Mode:      netlink.IPVLAN_MODE_L2,
	}
	if err := netlink.LinkAdd(child); err != nil {
		return fmt.Errorf("this kernel has no ipvlan: %w", err)
	}
	return nil
}

// runDirect runs the job in new network, mount and process namespaces of this host. The process namespace ends with
// its first process, and everything that the job left behind with it.
func runDirect(ctx context.Context, c config, stdout, stderr io.Writer) (status int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "multus-vpc-vm-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "job.json")
	data, err := json.Marshal(job{Argv: c.argv, Dir: c.dir, Env: c.env})
	if err != nil {
		return 0, err
	}
	if err = os.WriteFile(file, data, 0o600); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, insideArg, file)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	runtime.LockOSThread() // Pdeathsig is the death of the thread that started the child
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		return 0, fmt.Errorf("%s: %w", c.argv[0], cause)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}
