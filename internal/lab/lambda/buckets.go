// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Buckets finds the packages of functions where S3 would have them: a bucket is a folder of this machine, a key a path in
// it. It is safe for concurrent use.
type Buckets struct {
	folders map[string]string

	mu       sync.Mutex
	unpacked []string // folders
}

// NewBuckets returns the buckets that the folders are. The caller closes it.
func NewBuckets(folders map[string]string) *Buckets { return &Buckets{folders: folders} }

// Close removes what was unpacked. Closing twice succeeds.
func (b *Buckets) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, dir := range b.unpacked {
		errs = append(errs, os.RemoveAll(dir))
	}
	b.unpacked = nil
	return errors.Join(errs...)
}

// maxUnpacked is the most that a package may hold.
// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const maxUnpacked = 250 << 20

// Program unpacks a package, each time anew, and returns the path of its bootstrap, which has to be executable.
func (b *Buckets) Program(bucket, key string) (program string, err error) {
	folder, ok := b.folders[bucket]
	if !ok {
		return "", errors.New("NoSuchBucket: the specified bucket does not exist")
	}
	if !filepath.IsLocal(key) {
		return "", fmt.Errorf("NoSuchKey: %q is no path in the bucket's folder", key)
	}
	archive, err := zip.OpenReader(filepath.Join(folder, key))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("NoSuchKey: the specified key does not exist: %w", err)
	} else if err != nil {
		return "", fmt.Errorf("could not unzip %s: %w", key, err)
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	dir, err := b.folder()
	if err != nil {
		return "", err
	}
	if err := unpack(archive.File, dir); err != nil {
		return "", fmt.Errorf("unzip %s: %w", key, err)
	}
	program = filepath.Join(dir, "bootstrap")
	i := slices.IndexFunc(archive.File, func(f *zip.File) bool { return f.Name == "bootstrap" })
	if i < 0 || archive.File[i].Mode().Perm()&0o111 == 0 {
		// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html
		return "", fmt.Errorf("%s has no executable bootstrap", key)
	}
	return program, nil
}

// folder makes one that [Buckets.Close] removes.
func (b *Buckets) folder() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	dir, err := os.MkdirTemp("", "multus-vpc-function-")
	if err == nil {
		b.unpacked = append(b.unpacked, dir)
	}
	return dir, err
}

// unpack writes files into dir.
func unpack(files []*zip.File, dir string) error {
	size := uint64(0)
	for _, f := range files {
		if size += f.UncompressedSize64; size > maxUnpacked {
			return errors.New("unzipped size must be smaller than 262144000 bytes")
		}
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%q leads out of the package", f.Name)
		}
		path := filepath.Join(dir, f.Name)
		if f.FileInfo().IsDir() {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := unpackFile(f, path); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

func unpackFile(f *zip.File, path string) (err error) {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.CopyN(out, in, int64(f.UncompressedSize64)) // no more than it says, which was counted
	return err
}
