// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chart

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// TestProgramsTakeWhatTheChartGivesThem: with every file of values each program gets as far as to the one mistake that the test adds, so
// its flags, its variables and the agent's file are right.
func TestProgramsTakeWhatTheChartGivesThem(t *testing.T) {
	t.Parallel()
	programs, seen := build(t), map[string]int{}
	for _, values := range valueFiles(t) {
		all := newHelm(t).render("--values", values)
		for name, mistake := range map[string]struct {
			path   []any // to the pod's specification
			add    []string
			status int
			say    string
		}{
			// Flags, variables and file are judged together, and each mistake is told.
			"DaemonSet multus-vpc-agent":     {[]any{"spec", "template", "spec"}, []string{"mistake"}, 2, "agent: unexpected argument \"mistake\": the agent takes flags only\nhint: agent -h lists the flags and their variables\n"},
			"DaemonSet multus-vpc-agent-hpc": {[]any{"spec", "template", "spec"}, []string{"mistake"}, 2, "agent: unexpected argument \"mistake\": the agent takes flags only\nhint: agent -h lists the flags and their variables\n"},
			"Deployment multus-vpc-injector": {[]any{"spec", "template", "spec"}, []string{"mistake"}, 2, "injector: unexpected argument \"mistake\": the injector takes flags only\nhint: injector -h lists the flags and their variables\n"},
			"CronJob sweep":                  {[]any{"spec", "jobTemplate", "spec", "template", "spec"}, []string{"--kubeconfig=/mistake"}, 1, "vpcctl: read kubeconfig /mistake"},
			"Pod multus-vpc-test":            {[]any{"spec"}, []string{"--socket=/mistake"}, 1, "/mistake"},
		} {
			if all[name] == nil {
				continue
			}
			seen[name]++
			inner := at(t, all[name], append(slices.Clone(mistake.path), "containers", 0)...).(object)
			argv := texts(inner["command"])
			if inner["args"] != nil {
				argv = append(argv, texts(inner["args"])...)
			}
			if i := slices.Index(argv, "--config=/etc/multus-vpc/agent.yaml"); i >= 0 {
				file := filepath.Join(t.TempDir(), "agent.yaml")
				must(t, os.WriteFile(file, []byte(at(t, all["ConfigMap "+strings.TrimPrefix(name, "DaemonSet ")], "data", "agent.yaml").(string)), 0o600))
				argv[i] = "--config=" + file
			}
			cmd := exec.CommandContext(t.Context(), filepath.Join(programs, argv[0]), append(argv[1:], mistake.add...)...)
			env, _ := inner["env"].([]any)
			for _, e := range env {
				value, _ := e.(object)["value"].(string) // the downward API's are known to the cluster only
				cmd.Env = append(cmd.Env, e.(object)["name"].(string)+"="+value)
			}
			cmd.Env = append(cmd.Env, "AWS_REGION=us-west-2")
			out, err := cmd.CombinedOutput()
			exit, _ := errors.AsType[*exec.ExitError](err)
			if exit == nil || exit.ExitCode() != mistake.status || !strings.Contains(string(out), mistake.say) || mistake.add[0] == "mistake" && string(out) != mistake.say {
				t.Errorf("%s: %s: %v\n%s", filepath.Base(values), strings.Join(cmd.Args, " "), err, out)
			}
		}
	}
	if len(seen) != 5 {
		t.Errorf("found only %v", seen)
	}
}

// TestVariablesOfPodsAreWhole: a value may have what parts one variable from the next in the flag.
func TestVariablesOfPodsAreWhole(t *testing.T) {
	t.Parallel()
	all := newHelm(t).render("--set=image.repository=a,injector.enabled=true", "--set-json=injector.podEnv={\"GODEBUG\": \"http2client=0,netdns=go\", \"NO_PROXY\": \"a,b\"}")
	args := texts(at(t, all["Deployment multus-vpc-injector"], "spec", "template", "spec", "containers", 0, "args"))
	if want := "--env=GODEBUG=http2client=0,netdns=go\nNO_PROXY=a,b\n"; !slices.Contains(args, want) {
		t.Errorf("%q lack %q", args, want)
	}
}

// TestNetworksAreThePlugins: what the chart makes of a network, the plugin takes.
func TestNetworksAreThePlugins(t *testing.T) {
	t.Parallel()
	all := newHelm(t).render("--values", chartDir+"/ci/everything-values.yaml")
	n6 := all["NetworkAttachmentDefinition n6"]
	config := at(t, n6, "spec", "config").(string)
	if want := `{"cniVersion":"1.0.0","eni":{"deviceIndex":1},"ipam":{"type":"vpcipam"},"mtu":0,"name":"n6","sourceRouting":false,"type":"vpcipvlan"}`; config != want {
		t.Errorf("n6: %s, want %s", config, want)
	}
	if _, err := netconf.ParseVPCIpvlan(json.RawMessage(config), netconf.Env{AgentSocket: "/agent.sock"}); err != nil {
		t.Error(err)
	}
	n3 := all["NetworkAttachmentDefinition n3"]
	want := object{"cniVersion": "0.3.1", "name": "shared", "type": "ipvlan", "master": "eth1", "ipam": object{"type": "whereabouts", "range": "10.10.1.0/24"}}
	var got object
	must(t, json.Unmarshal([]byte(at(t, n3, "spec", "config").(string)), &got))
	if diff := cmp.Diff(want, got); diff != "" || at(t, n3, "metadata", "namespace") != "default" || at(t, n3, "metadata", "annotations", "multus-vpc.io/sync") != "native" {
		t.Errorf("n3: %v (-want +got):\n%s", n3, diff)
	}
}
