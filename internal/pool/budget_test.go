// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A quiet worker reads its ENIs about once an hour, and the reservations of each of its subnets once, however many ENIs
// are in one.
func TestQuietWorkerKeepsToItsBudget(t *testing.T) {
	const two = `{subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}`
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.ReplaceAll(twoWorkers, two, two+", "+two+", "+two))
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		for action, want := range map[string]int{
			"DescribeInstanceTypes": 1, "DescribeNetworkInterfaces": 1, "DescribeSubnets": 1, "GetSubnetCidrReservations": 1,
		} {
			if got := w.calls(action, ""); got != want {
				t.Errorf("%d calls of %s at the start, want %d", got, action, want)
			}
		}
		const hours = 3
		time.Sleep(hours * time.Hour)
		synctest.Wait()
		// One each 45 to 90 minutes, by the agent's own die.
		for _, action := range []string{"DescribeNetworkInterfaces", "GetSubnetCidrReservations"} {
			if got := w.calls(action, "") - 1; got < 2 || got > 4 {
				t.Errorf("%d calls of %s within %d hours, want 2 to 4", got, action, hours)
			}
		}
	})
}

// A boot that is throttled halfway does not ask again for what never changes.
func TestThrottledBootKeepsTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.Replace(twoWorkers, "ec2: {",
			"ec2: {faults: [{action: DescribeSubnets, nth: 1, count: 3, kind: error-before, code: RequestLimitExceeded}], ", 1))
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		if got := w.calls("DescribeSubnets", ""); got != 4 {
			t.Errorf("%d calls of DescribeSubnets, want 4", got)
		}
		if got := w.calls("DescribeInstanceTypes", ""); got != 1 {
			t.Errorf("%d calls of DescribeInstanceTypes, want 1", got)
		}
	})
}
