// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command pack builds the function, for both architectures unless it is told one, and packs each as the zip that Lambda takes.
// `make lambda` runs it, and `make demo-workers`, and tests. The same sources give the same bytes, in whatever folder and at whatever
// time, so that a zip can be checked by its hash.
package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("pack", flag.ContinueOnError)
	dist := flags.String("o", "dist", "`folder` that the zips are written to")
	architectures := flags.String("arch", "amd64,arm64", "`architectures` to build for, separated by commas")
	source := flags.String("source", "./lambda", "`package` of the function")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(*dist, 0o755); err != nil {
		return err
	}
	for arch := range strings.SplitSeq(*architectures, ",") {
		program, err := build(ctx, *source, arch)
		if err != nil {
			return fmt.Errorf("build for %s: %w", arch, err)
		}
		packed, err := pack(program)
		if err != nil {
			return err
		}
		path := filepath.Join(*dist, "lambda-"+arch+".zip")
		if err := os.WriteFile(path, packed, 0o644); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(stdout, "%s\t%.1f MB\tsha256 %x\n", path, float64(len(packed))/1e6, sha256.Sum256(packed)); err != nil {
			return err
		}
	}
	return nil
}

// build compiles the function. Neither the folder nor the commit gets into the program.
func build(ctx context.Context, source, arch string) (program []byte, err error) {
	dir, err := os.MkdirTemp("", "multus-vpc-lambda-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "bootstrap")
	// Without the tag the runtime's library brings net/rpc for a runtime that is no more:
	// https://github.com/aws/aws-lambda-go#for-developers-on-linux
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags=lambda.norpc", "-ldflags=-s -w", "-o", file, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=readonly", "GOAMD64=v1", "GOARM64=v8.0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(file)
}

// packedAt is the earliest time that a zip can say.
var packedAt = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// pack makes the zip: one executable file that says no more than its name.
func pack(program []byte) ([]byte, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	w.RegisterCompressor(zip.Deflate, func(to io.Writer) (io.WriteCloser, error) { return flate.NewWriter(to, flate.BestCompression) })
	header := &zip.FileHeader{Name: "bootstrap", Method: zip.Deflate, Modified: packedAt}
	header.SetMode(0o755)
	file, err := w.CreateHeader(header)
	if err != nil {
		return nil, err
	}
	if _, err := file.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
