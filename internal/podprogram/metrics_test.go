// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
)

var (
	metricRow = regexp.MustCompile("(?m)^\\| `(multusvpc_\\w+)` \\| (\\w+) \\| (.*) \\| (.*) \\|$")
	codeSpan  = regexp.MustCompile("`([^`]+)`")
)

// TestMetricsAreDocumented compares the page's table with what is served: names, types, labels, help.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../sidecar/README.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range metricRow.FindAllStringSubmatch(string(page), -1) {
		var labels []string
		for _, l := range codeSpan.FindAllStringSubmatch(row[3], -1) {
			labels = append(labels, l[1])
		}
		documented[row[1]] = strings.Join([]string{row[2], strings.Join(labels, " "), row[4]}, " | ")
	}
	m := newMetrics()
	m.call(ec2eni.Call{Action: "DescribeSubnets", Outcome: "ok"})
	m.claimed(time.Millisecond)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]string{}
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		served[f.GetName()] = strings.Join([]string{strings.ToLower(f.GetType().String()), strings.Join(labels, " "), f.GetHelp()}, " | ")
	}
	if diff := cmp.Diff(documented, served); diff != "" {
		t.Errorf("sidecar/README.md and /metrics differ (-page +program):\n%s", diff)
	}
}
