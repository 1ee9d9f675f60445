// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package worker

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// place is an OS thread that stays in a network namespace. Processes that it starts with a parent-death signal end with
// the thread (prctl(2), PR_SET_PDEATHSIG), so that none survives the test, not even one that panics.
type place struct {
	work chan func()
	gone chan struct{}
}

func enter(path string) (*place, error) {
	p := &place{work: make(chan func()), gone: make(chan struct{})}
	entered := make(chan error, 1)
	go func() {
		defer close(p.gone)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := setns(path)
		entered <- err
		if err != nil {
			return
		}
		for f := range p.work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return p, nil
}

func setns(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

// overmount has the processes that are started from here see an empty file system at dir, of at most so many bytes. It
// goes with the last of them.
func (p *place) overmount(dir string, size int) error {
	return p.do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare the mount namespace: %w", err)
		}
		// What others mount later, the namespaces of pods above all, is to be seen here, and not the other way round.
		if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("make / a slave: %w", err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
		return nil
	})
}

// resize changes the size of what overmount has mounted.
func (p *place) resize(dir string, size int) error {
	return p.do(func() error { return unix.Mount("", dir, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size)) })
}

// do runs f in the place, after what others run there.
func (p *place) do(f func() error) error {
	done := make(chan error, 1)
	p.work <- func() { done <- f() }
	return <-done
}

// leave ends the thread. Nothing may run in the place afterwards.
func (p *place) leave() {
	close(p.work)
	<-p.gone
}
