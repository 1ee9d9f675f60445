// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

func TestUpMakesNamespacesWithServicesAndRemovesThem(t *testing.T) {
	line, stop := running(t, "up", "../examples/lab/two-workers.yaml")
	names := slices.Sorted(maps.Keys(line.Netns))
	if diff := cmp.Diff([]string{"vpc", "worker-1", "worker-2"}, names); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
	for _, worker := range []string{"worker-1", "worker-2"} {
		err := netns.Do(line.Netns[worker], func() error {
			for _, at := range []string{lab.IMDSInWorker.String(), lab.EC2InWorker.String()} {
				c, err := net.Dial("tcp", at)
				if err != nil {
					return err
				}
				c.Close()
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", worker, err)
		}
	}
	stop()
	for name, path := range line.Netns {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("namespace of %s: %v, want it gone", name, err)
		}
	}
}
