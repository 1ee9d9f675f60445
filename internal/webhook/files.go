// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Files are a certificate that somebody else renews in a folder, as cert-manager does: tls.crt and tls.key. Make them with
// [OpenFiles], and run them.
type Files struct {
	dir      string
	interval time.Duration
	log      *slog.Logger
	current  atomic.Pointer[loaded]
	failed   atomic.Uint64
}

type loaded struct {
	certificate, key []byte
	pair             tls.Certificate
}

// OpenFiles reads the folder, now and every interval while Run runs.
func OpenFiles(dir string, interval time.Duration, log *slog.Logger) *Files {
	f := &Files{dir: dir, interval: interval, log: log}
	f.look()
	return f
}

// Run reads again what has changed until ctx ends. What cannot be read leaves the last certificate in use.
func (f *Files) Run(ctx context.Context) {
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.look()
		case <-ctx.Done():
			return
		}
	}
}

func (f *Files) look() {
	next, err := f.read()
	if err != nil {
		f.failed.Add(1)
		f.log.Error("certificate not read", "dir", f.dir, "error", err)
		return
	}
	if old := f.current.Load(); old == nil || !bytes.Equal(old.certificate, next.certificate) || !bytes.Equal(old.key, next.key) {
		f.current.Store(next)
		f.log.Info("certificate read", "dir", f.dir, "expires", next.pair.Leaf.NotAfter)
	}
}

// read fails when the two do not belong together, as in the moment when one of them has been written.
func (f *Files) read() (*loaded, error) {
	certificate, err := os.ReadFile(filepath.Join(f.dir, "tls.crt"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(f.dir, "tls.key"))
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("tls.crt and tls.key: %w", err)
	}
	return &loaded{certificate, key, pair}, nil
}

var errNoFiles = errors.New("no certificate has been read yet")

// Certificate is a [Certificate].
func (f *Files) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	l := f.current.Load()
	if l == nil {
		return nil, errNoFiles
	}
	return &l.pair, nil
}

// Ready is nil once a certificate was read.
func (f *Files) Ready() error {
	if f.current.Load() == nil {
		return errNoFiles
	}
	return nil
}

// Expires is when the certificate ends; zero when there is none.
func (f *Files) Expires() time.Time {
	l := f.current.Load()
	if l == nil {
		return time.Time{}
	}
	return l.pair.Leaf.NotAfter
}

// Failures is how many looks failed.
func (f *Files) Failures() uint64 { return f.failed.Load() }
