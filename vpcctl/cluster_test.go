// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

// TestScriptsWithACluster runs vpcctl against the lab's EC2 and a real API server, which the scripts share: each keeps to
// namespaces and nodes of its own.
func TestScriptsWithACluster(t *testing.T) {
	t.Parallel()
	programs, err := stack.Programs()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubernetes.Start(t.Context(), kubernetes.Config{Programs: programs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if closeErr := c.Close(); closeErr != nil {
			t.Error(closeErr)
		}
	})
	role, err := os.ReadFile("../examples/vpcctl-rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	definitions, err := stack.Definitions(programs)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), append(definitions, "\n---\n"+string(role)...)); err != nil {
		t.Fatal(err)
	}
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: "testdata/cluster", RequireUniqueNames: true, RequireExplicitExec: true,
			Setup: func(e *testscript.Env) error {
				e.Vars = append(e.Vars, "KUBECONFIG="+c.Kubeconfig, "AWS_ACCESS_KEY_ID=AKIALAB", "AWS_SECRET_ACCESS_KEY=secret")
				return nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"exits":   exits,
				"lab":     func(ts *testscript.TestScript, _ bool, args []string) { startLab(t, ts, args[0]) },
				"apply":   func(ts *testscript.TestScript, _ bool, args []string) { apply(t, ts, c, args[0]) },
				"status":  func(ts *testscript.TestScript, _ bool, args []string) { setStatus(t, ts, c, args[0], args[1]) },
				"account": func(ts *testscript.TestScript, _ bool, args []string) { useAccount(t, ts, c, args[0]) },
			},
		})
	})
}

// startLab SCENARIO serves EC2 until the script ends, and sets the variables that the SDK reads, INSTANCE_n and ENI_n for
// worker-n and its second ENI, and RESERVATION for the only one.
func startLab(t *testing.T, ts *testscript.TestScript, file string) {
	s, err := scenario.Parse([]byte(ts.ReadFile(file)))
	ts.Check(err)
	running, err := lab.Serve(t.Context(), s, lab.Config{})
	ts.Check(err)
	ts.Defer(func() { ts.Check(running.Close()) })
	ts.Setenv("AWS_ENDPOINT_URL_EC2", running.EC2URL)
	ts.Setenv("AWS_REGION", running.Cloud.Region())
	for name, id := range running.Instances {
		suffix := strings.TrimPrefix(name, "worker-")
		ts.Setenv("INSTANCE_"+suffix, id)
		ts.Setenv("ENI_"+suffix, running.ENIs[name][1])
	}
	for _, r := range running.Cloud.View(time.Now()).Reservations() {
		ts.Setenv("RESERVATION", r.ID)
	}
}

// apply FILE makes the objects of a file, in which $VARIABLES are replaced.
func apply(t *testing.T, ts *testscript.TestScript, c *kubernetes.Cluster, file string) {
	ts.Check(c.Apply(t.Context(), []byte(os.Expand(ts.ReadFile(file), ts.Getenv))))
}

// status NAMESPACE/NAME JSON changes the status of a pod, as its kubelet would.
func setStatus(t *testing.T, ts *testscript.TestScript, c *kubernetes.Cluster, pod, status string) {
	namespace, name := path.Split(pod)
	at := "/api/v1/namespaces/" + namespace + "pods/" + name
	var object map[string]any
	ts.Check(c.Do(t.Context(), http.MethodGet, at, nil, &object))
	var fields map[string]any
	ts.Check(json.Unmarshal([]byte(status), &fields))
	object["status"] = fields
	ts.Check(c.Do(t.Context(), http.MethodPut, at+"/status", object, nil))
}

// account NAMESPACE/NAME makes vpcctl that service account.
func useAccount(t *testing.T, ts *testscript.TestScript, c *kubernetes.Cluster, account string) {
	var issued struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	namespace, name := path.Split(account)
	ts.Check(c.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/"+namespace+"serviceaccounts/"+name+"/token", map[string]any{}, &issued))
	text, err := os.ReadFile(c.Kubeconfig)
	ts.Check(err)
	file := ts.MkAbs("kubeconfig-" + name)
	ts.Check(os.WriteFile(file, []byte(strings.ReplaceAll(string(text), c.Token, issued.Status.Token)), 0o600))
	ts.Setenv("KUBECONFIG", file)
}
