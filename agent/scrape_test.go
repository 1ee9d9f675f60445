// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// family is one metric as /metrics tells it.
type family struct {
	kind, help string
	values     map[string]float64  // by series as it is written, histograms by their _count
	labels     map[string][]string // values by label, without le
}

var (
	seriesLine = regexp.MustCompile(`^([a-z_0-9]+)(?:\{(.*)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
)

// parseMetrics reads Prometheus' text format.
// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
func parseMetrics(t testing.TB, text string) map[string]*family {
	t.Helper()
	all := map[string]*family{}
	of := func(name string) *family {
		if all[name] == nil {
			all[name] = &family{values: map[string]float64{}, labels: map[string][]string{}}
		}
		return all[name]
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			of(name).help = help
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			of(name).kind = kind
			continue
		}
		m := seriesLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("no line of a metric: %q", line)
		}
		name, series := m[1], m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(name, suffix); all[base] != nil && all[base].kind == "histogram" {
				name = base
			}
		}
		f := of(name)
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if pair[1] != "le" {
				f.labels[pair[1]] = append(f.labels[pair[1]], pair[2])
			}
		}
		if f.kind == "histogram" {
			if !strings.HasSuffix(series, "_count") {
				continue
			}
			series = name
		}
		if m[2] != "" {
			series += "{" + m[2] + "}"
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		f.values[series] = v
	}
	return all
}

// scrape reads the metrics as Prometheus would, without a socket.
func scrape(t testing.TB, m *metrics) map[string]*family {
	t.Helper()
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if w.Code != http.StatusOK {
		t.Fatalf("/metrics: %d %s", w.Code, w.Body)
	}
	return parseMetrics(t, w.Body.String())
}

// value is that of one series: 0 without it.
func value(t testing.TB, m *metrics, name string, labels ...string) float64 {
	t.Helper()
	series := name
	var pairs []string
	for i := 0; i < len(labels); i += 2 {
		pairs = append(pairs, fmt.Sprintf("%s=%q", labels[i], labels[i+1]))
	}
	if len(pairs) > 0 {
		series += "{" + strings.Join(pairs, ",") + "}"
	}
	f := scrape(t, m)[name]
	if f == nil {
		return 0
	}
	return f.values[series]
}
