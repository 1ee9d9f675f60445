// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/neighbour"
)

func TestNeighboursAreToldAtOnceAndAgainOfTheLastMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		began := time.Now()
		a := newAnnouncer(slog.New(slog.DiscardHandler))
		a.tell = func(_ context.Context, i attachment.Interface, addr netip.Addr, here bool) (int, error) {
			told = append(told, fmt.Sprint(i.Name, " ", addr, " ", here, " ", time.Since(began).Round(time.Second)))
			return 1, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			a.run(ctx)
		}()
		net1, vip := attachment.Interface{Name: "net1"}, netip.MustParseAddr("10.10.1.90")
		a.moved(net1, vip, false)
		a.moved(net1, vip, true)
		time.Sleep(10 * time.Second)
		cancel()
		<-ended
		a.moved(net1, vip, false)
		a.run(ctx) // what is queued in the end is told as well
		want := []string{"net1 10.10.1.90 false 0s", "net1 10.10.1.90 true 0s", "net1 10.10.1.90 true 1s", "net1 10.10.1.90 false 10s"}
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

func TestWithoutTheRightNobodyIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		a := newAnnouncer(slog.New(slog.DiscardHandler))
		a.tell = func(context.Context, attachment.Interface, netip.Addr, bool) (int, error) {
			calls++
			return 0, neighbour.ErrNotPermitted
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			a.run(ctx)
		}()
		for range 1000 { // more than are kept
			a.moved(attachment.Interface{Name: "net1"}, netip.MustParseAddr("10.10.1.90"), false)
		}
		time.Sleep(10 * time.Second)
		cancel()
		<-ended
		if calls != 1 {
			t.Errorf("tried %d times, want once", calls)
		}
	})
}
