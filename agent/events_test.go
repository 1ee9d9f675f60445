// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/kube"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// heralded runs a herald in a bubble until the test returns. record is called in its goroutine.
func heralded(t *testing.T, record func(context.Context, kube.Event) error, test func(h *herald, log *bytes.Buffer)) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := newHerald(nil, "node-1", slog.New(slog.NewTextHandler(&log, nil)))
		h.record = record
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go h.run(ctx)
		test(h, &log)
	})
}

func notice(pod, text string) pool.Notice {
	return pool.Notice{Pod: attachment.Pod{Namespace: "core", Name: pod, UID: pod + "-1"}, About: pool.AddressLost, Text: text}
}

func TestHeraldMakesAnEventOfANotice(t *testing.T) {
	var got []kube.Event
	record := func(_ context.Context, e kube.Event) error { got = append(got, e); return nil }
	heralded(t, record, func(h *herald, _ *bytes.Buffer) {
		began := time.Now()
		h.tell(notice("amf-0", "lost"))
		synctest.Wait()
		want := kube.Event{
			Pod: attachment.Pod{Namespace: "core", Name: "amf-0", UID: "amf-0-1"}, Warning: true, Reason: "AddressLost", Message: "lost", Time: began, Node: "node-1",
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("events %+v, want %+v", got, want)
		}
	})
}

func TestHeraldSaysTheSameOnceInAWhile(t *testing.T) {
	var got []string
	record := func(_ context.Context, e kube.Event) error { got = append(got, e.Pod.Name+" "+e.Message); return nil }
	heralded(t, record, func(h *herald, _ *bytes.Buffer) {
		for range 3 {
			h.tell(notice("amf-0", "lost"))
			h.tell(notice("amf-1", "lost"))
			h.tell(notice("amf-0", "lost again"))
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if want := []string{"amf-0 lost", "amf-1 lost", "amf-0 lost again"}; strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("events %q, want %q", got, want)
		}
		time.Sleep(sameAfter)
		h.tell(notice("amf-0", "lost"))
		synctest.Wait()
		if len(got) != 4 {
			t.Errorf("%d events after a while, want a fourth", len(got))
		}
	})
}

// However much goes wrong, the API server hears of it at a bearable rate, and nobody who tells waits for it.
func TestHeraldSparesTheAPIServer(t *testing.T) {
	made := 0
	record := func(ctx context.Context, _ kube.Event) error {
		made++
		<-ctx.Done() // the API server does not answer
		return ctx.Err()
	}
	heralded(t, record, func(h *herald, _ *bytes.Buffer) {
		began := time.Now()
		for i := range 10_000 {
			h.tell(notice("amf-0", fmt.Sprint(i)))
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("telling took %s", took)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if limit := 1 + waitingNotices; made > limit || made < waitingNotices {
			t.Errorf("%d events of 10000 notices at once, want %d", made, limit)
		}
	})
}

func TestHeraldComplainsOnceThatItMayNot(t *testing.T) {
	record := func(context.Context, kube.Event) error { return errors.New("forbidden") }
	heralded(t, record, func(h *herald, log *bytes.Buffer) {
		for i := range 5 {
			h.tell(notice("amf-0", fmt.Sprint(i)))
			synctest.Wait()
		}
		if n := strings.Count(log.String(), "event not made"); n != 1 {
			t.Errorf("%d complaints:\n%s", n, log)
		}
	})
}

func TestHeraldWithoutAKubernetesAPITellsNobody(t *testing.T) {
	heralded(t, nil, func(h *herald, log *bytes.Buffer) {
		h.tell(notice("amf-0", "lost"))
		synctest.Wait()
		if len(h.queue) != 0 || log.Len() != 0 {
			t.Errorf("%d wait, log %q", len(h.queue), log)
		}
	})
}
