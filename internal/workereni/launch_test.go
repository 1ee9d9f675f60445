// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

func TestAWorkerGetsItsENIsAndLeavesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoZones+"ec2: {latency: 80ms, propagation: {route: 1s, imds: 2s, describe: 2s}}\n")
		cfg := w.config(
			w.on("n4-a", func(i *workereni.Interface) { i.Groups, i.Stock = []eni.GroupID{w.group}, 6 }),
			w.on("n6-a", func(i *workereni.Interface) { i.SourceDestCheck, i.DeleteOnTermination = false, false }),
			w.on("n4-b"),
		)
		id := w.instance("m5.2xlarge", "nodes-a")
		began := time.Now()
		got := w.mustLaunch(w.flow(cfg), id)
		t.Logf("in place after %s, with %v", time.Since(began), w.lab.Front.Calls())
		w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
		first := got[0]
		if netip.MustParsePrefix("10.10.1.0/29").Contains(first.Interface.Primary) || netip.MustParsePrefix("10.10.1.128/26").Contains(first.Interface.Primary) {
			t.Errorf("its own address %s is reserved", first.Interface.Primary)
		}
		if len(first.Secondary) != 6 || len(first.IPv6) != 1 || first.Groups[0] != w.group {
			t.Errorf("first ENI %+v", first)
		}
		for _, a := range first.Secondary {
			if !netip.MustParsePrefix("10.10.1.128/26").Contains(a) {
				t.Errorf("stock %s is not of the pool's reservation", a)
			}
		}
		for k, v := range map[string]string{eni.TagNoManage: "true", "team": "core", workereni.TagOwner: "group-1", workereni.TagInstance: string(id), workereni.TagSlot: "0:1"} {
			if first.Tags[k] != v {
				t.Errorf("tag %s is %q, want %q", k, first.Tags[k], v)
			}
		}
		writes := w.calls("CreateNetworkInterface", "")
		w.mustLaunch(w.flow(cfg), id)
		if again := w.calls("CreateNetworkInterface", ""); again != writes {
			t.Errorf("%d more were created by a repetition", again-writes)
		}

		if err := w.flow(cfg).Terminate(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.wantENIs("0:1 n4-a at 0:1 dies")
		if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
			t.Fatal(err)
		}
		w.wantENIs()
		if err := w.flow(cfg).Terminate(t.Context(), id); err != nil {
			t.Errorf("terminated twice: %v", err)
		}
	})
}
