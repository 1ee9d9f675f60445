// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// described is a metric as docs/metrics.md has it.
type described struct {
	Kind, Help string
	Labels     []string
}

var (
	metricSection = regexp.MustCompile("(?ms)^### `([a-z_0-9]+)`\n\n([A-Z][a-z]+)([^.]*)\\. (.*?)\n\n")
	labelRow      = regexp.MustCompile("(?m)^\\| `([a-z]+)` \\| (.*) \\|$")
	codeSpan      = regexp.MustCompile("`([^`]+)`")
)

func metricsDocument(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func spans(text string) (words []string) {
	for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
		words = append(words, m[1])
	}
	return words
}

// TestMetricsAreDocumented compares what a real agent serves with the page: names, types, units, labels, their values, and help.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	doc := metricsDocument(t)
	want := map[string]described{}
	for _, m := range metricSection.FindAllStringSubmatch(doc, -1) {
		want[m[1]] = described{strings.ToLower(m[2]), strings.Join(strings.Fields(m[4]), " "), append([]string{}, spans(m[3])...)}
		if unit := strings.Contains(m[3], "in seconds"); unit != strings.HasSuffix(m[1], "_seconds") {
			t.Errorf("%s: the page says that its unit is seconds: %t", m[1], unit)
		}
		if counts := strings.ToLower(m[2]) == "counter"; counts != strings.HasSuffix(m[1], "_total") {
			t.Errorf("%s is a %s", m[1], m[2])
		}
	}
	values := map[string][]string{}
	for _, m := range labelRow.FindAllStringSubmatch(doc, -1) {
		values[m[1]] = spans(m[2])
	}

	running := served(t)
	if err := running.Front.SetFaults([]front.Fault{{Action: "DescribeInstanceTypes", Kind: front.ErrorBefore}}); err != nil {
		t.Fatal(err)
	}
	d := started(t, running, running.IMDSURL["worker-1"])
	d.await("it is ready", func() bool { status, _ := d.get("/readyz"); return status == http.StatusOK })
	query := onIndex(1)
	query.Source = attachment.SourcePrefix // all that there is comes to be with a pod out of a prefix
	client := agentapi.Client{Socket: d.socket, Timeout: time.Minute}
	if _, err := client.Call(t.Context(), agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: query}); err != nil {
		t.Fatal(err)
	}
	_, body := d.get("/metrics")
	got := map[string]described{}
	for name, f := range parseMetrics(t, body) {
		labels := append([]string{}, slices.Sorted(maps.Keys(f.labels))...)
		got[name] = described{f.kind, f.help, labels}
		for label, all := range f.labels {
			for _, v := range all {
				if label != "eni" && label != "version" && !slices.Contains(values[label], v) {
					t.Errorf("%s: %s=%q is not among the values that the page lists", name, label, v)
				}
			}
		}
	}
	for name, w := range want {
		slices.Sort(w.Labels)
		want[name] = w
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/metrics.md and /metrics differ (-page +agent):\n%s", diff)
	}
	if series := strings.Count(body, "\n") - 2*len(got); series > 250+40*5 {
		t.Errorf("%d series for 5 ENIs are more than the page says", series)
	}
	d.stop()
}

// TestLabelsAreClosedSets: the page's lists are the code's, also of what no test makes happen.
func TestLabelsAreClosedSets(t *testing.T) {
	t.Parallel()
	real := map[string][]string{
		"error": append(errorLabels(), "other"), "result": {"released", "outdated"}, "method": {"unknown"}, "action": append(ec2eni.Actions(), ec2eni.WorkerActions()...), "code": {"0"}, "state": nil,
	}
	for m := range methods {
		real["method"] = append(real["method"], string(m))
	}
	for m := range podMethods {
		real["method"] = append(real["method"], string(m))
	}
	for _, code := range codes {
		real["code"] = append(real["code"], fmt.Sprint(code))
	}
	for _, code := range []uint{agentapi.CodeUnsupportedField, agentapi.CodeIO, agentapi.CodeDecode, agentapi.CodeNotAvailable, agentapi.CodeLimited, agentapi.CodeVersion, agentapi.CodeContested} {
		real["code"] = append(real["code"], fmt.Sprint(code))
	}
	for _, s := range append(ownership.States()[1:], holdStates[:]...) {
		real["state"] = append(real["state"], s.String())
	}
	for _, m := range labelRow.FindAllStringSubmatch(metricsDocument(t), -1) {
		label := m[1]
		if label == "eni" || label == "version" {
			continue
		}
		set := func(list []string) []string { slices.Sort(list); return slices.Compact(list) }
		if diff := cmp.Diff(set(real[label]), set(spans(m[2]))); diff != "" {
			t.Errorf("values of %s (-code +page):\n%s", label, diff)
		}
		delete(real, label)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var permitted []string // those that the agent calls: test/docs compares them with the source
	for _, m := range regexp.MustCompile("(?m)^\\| `ec2:([A-Za-z0-9]+)` \\|$").FindAllSubmatch(readme, -1) {
		permitted = append(permitted, string(m[1]))
	}
	slices.Sort(permitted)
	if diff := cmp.Diff(permitted, ec2eni.Actions()); diff != "" {
		t.Errorf("actions (-README.md +metrics):\n%s", diff)
	}
	if len(real) > 0 {
		t.Errorf("the page has no row for %v", slices.Sorted(maps.Keys(real)))
	}
}

var promql = regexp.MustCompile("(?ms)^```promql\n(.*?)^```$")

// TestAlertsNameWhatThereIs: metrics and labels in the page's queries exist. A label of Prometheus itself is instance.
func TestAlertsNameWhatThereIs(t *testing.T) {
	t.Parallel()
	doc := metricsDocument(t)
	labels := map[string][]string{}
	for _, m := range metricSection.FindAllStringSubmatch(doc, -1) {
		labels[m[1]] = append(spans(m[3]), "le", "instance")
	}
	name := regexp.MustCompile(`multusvpc_[a-z_0-9]+`)
	selector := regexp.MustCompile(`(multusvpc_[a-z_0-9]+)\{([^}]*)\}`)
	found := 0
	for _, m := range promql.FindAllStringSubmatch(doc, -1) {
		found++
		base := func(n string) string {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				n = strings.TrimSuffix(n, suffix)
			}
			return n
		}
		for _, n := range name.FindAllString(m[1], -1) {
			if labels[base(n)] == nil {
				t.Errorf("no metric %s:\n%s", n, m[1])
			}
		}
		for _, s := range selector.FindAllStringSubmatch(m[1], -1) {
			for matcher := range strings.SplitSeq(s[2], ", ") {
				label, _, _ := strings.Cut(strings.Trim(matcher, " "), "=")
				if label = strings.TrimSuffix(label, "!"); !slices.Contains(labels[base(s[1])], label) {
					t.Errorf("%s has no label %q:\n%s", s[1], label, m[1])
				}
			}
		}
		if strings.Count(m[1], "(") != strings.Count(m[1], ")") || strings.Count(m[1], "{") != strings.Count(m[1], "}") {
			t.Errorf("unbalanced:\n%s", m[1])
		}
	}
	if found < 10 {
		t.Errorf("found only %d alerts", found)
	}
}

// stuckLedger hangs inside of a call that holds the pool's lock.
type stuckLedger struct{ asked, goOn chan struct{} }

func (s stuckLedger) Put(...pool.Record) error {
	close(s.asked)
	<-s.goOn
	return nil
}

// TestProbesTellWhatIsWrong: both answers of both probes.
func TestProbesTellWhatIsWrong(t *testing.T) {
	t.Parallel() // in real time: a bubble's clock stands still while somebody waits for a lock
	m := newMetrics()
	probe := func(path string, status int, says string) {
		t.Helper()
		w := httptest.NewRecorder()
		m.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if w.Code != status || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %q, want %d %q", path, w.Code, w.Body, status, says)
		}
	}
	probe("/healthz", http.StatusOK, "ok")
	probe("/readyz", http.StatusServiceUnavailable, "the instance metadata has not answered yet")

	book := stuckLedger{make(chan struct{}), make(chan struct{})}
	cfg := pool.DefaultConfig()
	cfg.Uptime = func() time.Duration { return time.Hour }
	held := pool.Record{Key: "hold/a/net1", Value: []byte(`{"containerID":"a","ifName":"net1","eni":"eni-1","addresses":["10.72.1.64"],"state":"held"}`)}
	node := pool.New(cfg, eni.Instance{ID: "i-1"}, pool.Ports{Ledger: book}, []pool.Record{held}, false)
	m.gauges.node.Store(&worker{Node: node})
	probe("/healthz", http.StatusOK, "ok")
	probe("/readyz", http.StatusServiceUnavailable, "the worker's ENIs are not known yet: not ready: starting")

	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = node.Del(attached("a").Key)
	}()
	<-book.asked
	probe("/healthz", http.StatusServiceUnavailable, "could not be read for 900ms: it is stuck")
	probe("/readyz", http.StatusServiceUnavailable, "it is stuck")
	close(book.goOn)
	<-done
	probe("/healthz", http.StatusOK, "ok")
}
