// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is a program that runs.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	life context.Context // ends with the process
}

// run starts a program, which writes to a file of its name.
func (c *Cluster) run(program string, args ...string) error {
	name := filepath.Base(program)
	log, err := os.Create(filepath.Join(c.dir, name+".log"))
	if err != nil {
		return err
	}
	p := &process{name: name, cmd: exec.Command(program, args...), log: log}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.dir, log, log
	p.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + c.dir, "TMPDIR=" + c.dir}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	life, end := context.WithCancel(context.Background())
	p.life = life
	started := make(chan error, 1)
	go func() {
		// The signal comes with the end of the thread, which would otherwise be anybody's (prctl(2), PR_SET_PDEATHSIG).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer end()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // what there is to say, the log does
		}
	}()
	if err := <-started; err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	c.processes = append(c.processes, p)
	return nil
}

// kill ends the process, if it has not ended, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only when it has ended
	<-p.life.Done()
	_ = p.log.Close() // fails the second time
}

// lastWords are as many bytes of a log as an error shows.
const lastWords = 2000

// obituary is the error that the process has ended, with what it said last.
func (p *process) obituary() error {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return fmt.Errorf("%s ended: %s; %w", p.name, p.cmd.ProcessState, err)
	}
	said := strings.TrimSpace(string(bytes.ToValidUTF8(text[max(0, len(text)-lastWords):], nil)))
	return fmt.Errorf("%s ended: %s\n%s", p.name, p.cmd.ProcessState, said)
}

// reserved is a socket that is bound to a port and does not listen: nobody else is given the port, and a process of the
// same user that asks for SO_REUSEPORT can listen there (socket(7)).
type reserved int

func (r reserved) release() error { return unix.Close(int(r)) }

// reserve takes a free port of the loopback address until the cluster is closed.
func (c *Cluster) reserve() (netip.AddrPort, error) {
	loopback := [4]byte{127, 0, 0, 1}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reserve a port: %w", err)
	}
	c.ports = append(c.ports, reserved(fd))
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return netip.AddrPort{}, fmt.Errorf("reserve a port: %w", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}); err != nil {
		return netip.AddrPort{}, fmt.Errorf("reserve a port: %w", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reserve a port: %w", err)
	}
	at, ok := bound.(*unix.SockaddrInet4)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("reserve a port: the socket is bound to %T", bound)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(loopback), uint16(at.Port)), nil
}
