// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// kvmTimeout is for a boot to a program that does nothing: under KVM that takes a second, and some hosts have a
// /dev/kvm under which nothing ever finishes.
const kvmTimeout = 6 * time.Second

// chooseAccel uses KVM only where a machine was seen to boot and power off with it. The answer is remembered until the
// next boot of this host.
func chooseAccel(ctx context.Context, c config, k kernel) string {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return accelTCG
	}
	f.Close()
	note := ""
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		note = filepath.Join(c.cache, "kvm-"+strings.TrimSpace(string(boot)))
		if answer, err := os.ReadFile(note); err == nil {
			return string(answer)
		}
	}
	accel := accelTCG
	ctx, cancel := context.WithTimeout(ctx, kvmTimeout)
	defer cancel()
	c.argv, c.ship, c.dir, c.verbose = []string{"/bin/true"}, nil, "/", false
	if status, err := runMachine(ctx, c, k, accelKVM, io.Discard, io.Discard); err == nil && status == 0 {
		accel = accelKVM
	}
	if note != "" {
		// Without the note the next run asks again; that is all.
		_ = os.WriteFile(note, []byte(accel), 0o644)
	}
	return accel
}
