// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultKernel is the Debian package that depends on the current kernel for virtual machines.
const defaultKernel = "linux-image-cloud-amd64"

// kernel is an unpacked kernel whose modules are indexed.
type kernel struct {
	version string
	image   string // vmlinuz
	modules string // …/lib/modules/VERSION
}

// findKernel returns the kernel that name means: a folder, or a Debian package that is downloaded once.
func findKernel(ctx context.Context, name, cache string, stderr io.Writer) (kernel, error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return findInFolder(ctx, name, cache)
	}
	if strings.Contains(name, "/") {
		return kernel{}, fmt.Errorf("KERNEL=%s: no such folder", name)
	}
	dir := filepath.Join(cache, "kernels", name)
	err := once(dir, func(tmp string) error {
		fmt.Fprintf(stderr, "vm: downloading %s\n", name)
		return download(ctx, name, tmp)
	})
	if err != nil {
		return kernel{}, fmt.Errorf("kernel package %s: %w", name, err)
	}
	return open(dir)
}

// findInFolder uses a folder as it is when its modules are indexed, and otherwise an indexed copy: the folder belongs
// to the user.
func findInFolder(ctx context.Context, name, cache string) (kernel, error) {
	k, err := open(name)
	if err == nil || !errors.Is(err, errNoIndex) {
		return k, err
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return kernel{}, err
	}
	info, err := os.Stat(k.image)
	if err != nil {
		return kernel{}, err
	}
	id := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", abs, info.Size(), info.ModTime().UnixNano()))
	dir := filepath.Join(cache, "kernels", fmt.Sprintf("folder-%x", id[:8]))
	err = once(dir, func(tmp string) error {
		for _, part := range []string{filepath.Join("boot", filepath.Base(k.image)), filepath.Join("lib/modules", k.version)} {
			target := filepath.Dir(filepath.Join(tmp, part))
			if err = os.MkdirAll(target, 0o755); err != nil {
				return err
			}
			if err = command(ctx, tmp, "cp", "-rL", filepath.Join(abs, part), target); err != nil {
				return err
			}
		}
		return command(ctx, tmp, "depmod", "-b", tmp, k.version)
	})
	if err != nil {
		return kernel{}, fmt.Errorf("KERNEL=%s: %w", name, err)
	}
	return open(dir)
}

var errNoIndex = errors.New("modules are not indexed")

// open looks at a folder with boot/vmlinuz-* and lib/modules. With several kernels it takes the last by name.
func open(dir string) (kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) == 0 {
		return kernel{}, fmt.Errorf("%s has no boot/vmlinuz-*", dir)
	}
	image := slices.Max(images)
	version := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	k := kernel{version: version, image: image, modules: filepath.Join(dir, "lib/modules", version)}
	if _, err := os.Stat(k.modules); err != nil {
		return k, fmt.Errorf("%s has no modules for it: %w", image, err)
	}
	if _, err := os.Stat(filepath.Join(k.modules, "modules.dep")); err != nil {
		return k, fmt.Errorf("%s: %w", k.modules, errNoIndex)
	}
	return k, nil
}

// download unpacks a kernel package into dir, without installing it. A metapackage leads to the kernel it depends on;
// superseded versions vanish from the archive, so the current one is looked up.
func download(ctx context.Context, name, dir string) error {
	pkg, err := dependency(ctx, name)
	if err != nil {
		return err
	}
	if err = command(ctx, dir, "apt-get", "download", "-q", pkg); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", pkg, len(debs))
	}
	if err = command(ctx, dir, "dpkg-deb", "-x", debs[0], dir); err != nil {
		return err
	}
	if err = os.Remove(debs[0]); err != nil {
		return err
	}
	// Newer packages have their modules under /usr (https://wiki.debian.org/UsrMerge).
	if _, err = os.Stat(filepath.Join(dir, "lib")); errors.Is(err, fs.ErrNotExist) {
		if err = os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil {
			return err
		}
	}
	versions, err := os.ReadDir(filepath.Join(dir, "lib/modules"))
	if err != nil || len(versions) != 1 {
		return fmt.Errorf("%s holds %d kernels", pkg, len(versions))
	}
	return command(ctx, dir, "depmod", "-b", dir, versions[0].Name())
}

func dependency(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "show", "--no-all-versions", name).Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache show: %w (are the package lists there? apt-get update)", err)
	}
	for line := range strings.Lines(string(out)) {
		depends, ok := strings.CutPrefix(line, "Depends: ")
		if !ok {
			continue
		}
		for d := range strings.SplitSeq(depends, ",") {
			if pkg := strings.Fields(d)[0]; strings.HasPrefix(pkg, "linux-image-") {
				return pkg, nil
			}
		}
	}
	return name, nil
}

// once makes dir by fill unless it exists. Processes that want the same folder wait for one another, and a folder
// that exists is complete.
func once(dir string, fill func(tmp string) error) (err error) {
	if _, err = os.Stat(dir); err == nil {
		return nil
	}
	if err = os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if _, err = os.Stat(dir); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "unpack-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// command runs a program of this host in dir. Those in sbin are found although they are not on every user's PATH.
func command(ctx context.Context, dir, name string, args ...string) error {
	program := name
	if _, err := exec.LookPath(name); err != nil {
		program = filepath.Join("/usr/sbin", name)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
