// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// Place is a worker as its processes see it: the worker's network namespace, and a folder of the pods' namespaces that
// holds this worker's pods alone. It is an OS thread. Processes that it starts die with it, so that none survives the
// test, however that ends.
type Place struct {
	Pods string // where the worker's folder of namespaces lies outside of it
	work chan func()
	gone chan struct{}
}

// Enter makes the place of a worker. Its folder of namespaces is pods, which must not exist.
func Enter(netnsPath, pods string) (p *Place, err error) {
	if err = os.Mkdir(pods, 0o755); err != nil {
		return nil, err
	}
	// Only a shared mount passes on what is mounted in it later.
	if err = errors.Join(unix.Mount(pods, pods, "", unix.MS_BIND, ""), unix.Mount("", pods, "", unix.MS_SHARED, "")); err != nil {
		return nil, fmt.Errorf("share %s: %w", pods, err)
	}
	p = &Place{Pods: pods, work: make(chan func()), gone: make(chan struct{})}
	entered := make(chan error)
	go func() {
		defer close(p.gone)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		enterErr := errors.Join(setns(netnsPath), isolate(pods))
		entered <- enterErr
		if enterErr != nil {
			return
		}
		for f := range p.work {
			f()
		}
	}()
	if err = <-entered; err != nil {
		return nil, fmt.Errorf("enter %s: %w", netnsPath, err)
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

// isolate gives the calling thread a mount namespace in which [netns.Dir] is the folder pods. The namespaces of other
// pods and tests are unmounted there: a second mount would keep them alive.
func isolate(pods string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare the mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	others, err := os.ReadDir(netns.Dir)
	if err != nil {
		return err
	}
	for _, o := range others {
		_ = unix.Unmount(filepath.Join(netns.Dir, o.Name()), unix.MNT_DETACH) // not mounted, or gone meanwhile
	}
	if err := unix.Mount(pods, netns.Dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", pods, netns.Dir, err)
	}
	return nil
}

// Do runs f in the place.
func (p *Place) Do(f func() error) error {
	done := make(chan error, 1)
	p.work <- func() { done <- f() }
	return <-done
}

// Leave ends the thread, and with it what it started, and removes every pod's namespace.
func (p *Place) Leave() error {
	close(p.work)
	<-p.gone
	left, err := os.ReadDir(p.Pods)
	errs := []error{err}
	for _, f := range left {
		errs = append(errs, p.Remove(f.Name()))
	}
	return errors.Join(append(errs, unix.Unmount(p.Pods, unix.MNT_DETACH), os.Remove(p.Pods))...)
}

// Create makes an empty network namespace for a pod, and returns its path outside of the place.
func (p *Place) Create(name string) (path string, err error) {
	path = filepath.Join(p.Pods, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return "", err
	}
	if err = f.Close(); err != nil {
		return "", err
	}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in the new namespace
		unshareErr := unix.Unshare(unix.CLONE_NEWNET)
		if unshareErr == nil {
			unshareErr = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		made <- unshareErr
	}()
	if err = <-made; err != nil {
		return "", errors.Join(fmt.Errorf("make network namespace %s: %w", path, err), os.Remove(path))
	}
	return path, nil
}

// Inside is the path of a pod's namespace as the worker's processes know it.
func (p *Place) Inside(name string) string { return filepath.Join(netns.Dir, name) }

// Remove takes a pod's namespace away. Removing twice succeeds.
func (p *Place) Remove(name string) error {
	path := filepath.Join(p.Pods, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// BootFrom has the place's processes read the worker's boot ID from a file, so that a test can boot the worker again by
// writing another one. It is called once.
func (p *Place) BootFrom(file string) error {
	const bootID = "/proc/sys/kernel/random/boot_id"
	return p.Do(func() error {
		if err := unix.Mount(file, bootID, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", file, bootID, err)
		}
		return nil
	})
}
