// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	function "github.com/multus-vpc/multus-vpc/internal/lab/lambda"
)

// TestCost measures the function: `make bench-lambda`. In a plain test it looks that the figures are there, and that the first event
// of a new environment is not what a launch waits for.
func TestCost(t *testing.T) {
	rounds := 2
	if s := os.Getenv("MULTUS_VPC_ROUNDS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil || rounds < 1 {
			t.Fatalf("MULTUS_VPC_ROUNDS: %q is no number of rounds", s)
		}
	}
	g := newGround(t, "", nil)
	members := g.scale(1)
	worker := members[0].ID
	g.await("the end of the launch's invocation", func() bool { return len(g.Functions.Invocations(functionName)) == 1 })
	kinds := []struct {
		name    string
		payload string
		figures []function.Invocation
		cold    bool
	}{
		{name: "first event, a worker that ends, no ENI to take", payload: event("terminate", "i-0123456789abcdef0"), cold: true},
		{name: "the same, environment in use", payload: event("terminate", "i-0123456789abcdef0")},
		{name: "first event, a launch that finds both ENIs in place", payload: event("launch", worker), cold: true},
		{name: "the same, environment in use", payload: event("launch", worker)},
	}
	for range rounds {
		for i := range kinds {
			k := &kinds[i]
			if k.cold {
				g.Functions.Kill(functionName)
			}
			before := len(g.Functions.Invocations(functionName))
			if _, err := g.Functions.Invoke(t.Context(), functionName, []byte(k.payload)); err != nil {
				t.Fatal(err)
			}
			k.figures = append(k.figures, g.Functions.Invocations(functionName)[before:]...)
		}
	}
	const row = "%-52s %9s %9s %9s"
	t.Logf(row, fmt.Sprintf("medians of %d", rounds), "start ms", "event ms", "MiB")
	for _, k := range kinds {
		start := median(k.figures, func(i function.Invocation) float64 { return i.Init.Seconds() * 1000 })
		took := median(k.figures, func(i function.Invocation) float64 { return i.Duration.Seconds() * 1000 })
		memory := median(k.figures, func(i function.Invocation) float64 { return float64(i.MaxMemory) / (1 << 20) })
		text := "-"
		if k.cold {
			text = fmt.Sprintf("%.1f", start)
		}
		t.Logf(row, k.name, text, fmt.Sprintf("%.1f", took), fmt.Sprintf("%.1f", memory))
		if len(k.figures) != rounds || took <= 0 || memory <= 0 || (start > 0) != k.cold {
			t.Errorf("%s: %d figures, %.1f ms start, %.1f ms, %.1f MiB", k.name, len(k.figures), start, took, memory)
		}
		if start > 2000 { // of the 10 s that Lambda allows, on a machine that runs other tests
			t.Errorf("%s: the start takes %.0f ms", k.name, start)
		}
		if memory > 128 { // half of what the template gives
			t.Errorf("%s: %.0f MiB", k.name, memory)
		}
	}
}

func median(all []function.Invocation, of func(function.Invocation) float64) float64 {
	var values []float64
	for _, i := range all {
		values = append(values, of(i))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// event is one of a hook that waits no longer.
func event(kind, instance string) string {
	transition := autoscaling.Launching
	if kind == "terminate" {
		transition = autoscaling.Leaving
	}
	detail, err := json.Marshal(map[string]string{
		"LifecycleActionToken": "87654321-4321-4321-4321-210987654321", "AutoScalingGroupName": group, "LifecycleHookName": launchHook,
		"EC2InstanceId": instance, "LifecycleTransition": string(transition), "Origin": "EC2", "Destination": "AutoScalingGroup",
	})
	if err != nil {
		panic(err) // strings always encode
	}
	return strings.NewReplacer("KIND", kind, "DETAIL", string(detail), "TIME", time.Now().UTC().Format(time.RFC3339)).Replace(
		`{"id": "e", "detail-type": "EC2 Instance-KIND Lifecycle Action", "source": "aws.autoscaling", "time": "TIME", "detail": DETAIL}`)
}
