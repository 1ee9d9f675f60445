// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chart

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

// raise starts an API server with the kinds that the chart's objects have.
func raise(t *testing.T) *kubernetes.Cluster {
	t.Helper()
	programs, err := stack.Programs()
	must(t, err)
	c, err := kubernetes.Start(t.Context(), kubernetes.Config{Programs: programs})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	definitions, err := stack.Definitions(programs)
	must(t, err)
	must(t, c.Apply(t.Context(), definitions))
	others, err := os.ReadFile("testdata/definitions.yaml")
	must(t, err)
	must(t, c.Apply(t.Context(), others))
	return c
}

// TestInstallUpgradeRemove does with every file of values what its user would, from the least on and back: Helm validates against the API
// server's schema, and the API server takes each object as a whole, with no field that it does not know.
func TestInstallUpgradeRemove(t *testing.T) {
	t.Parallel()
	h, c := newHelm(t), raise(t)
	h.env = append(h.env, "KUBECONFIG="+c.Kubeconfig)
	least := chartDir + "/ci/defaults-values.yaml"
	install := func(values string) {
		t.Helper()
		out, err := h.try("upgrade", "--install", "multus-vpc", chartDir, "--namespace", namespace, "--create-namespace", "--values", values)
		if err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(values), err, out)
		}
	}
	install(least)
	for _, values := range valueFiles(t) {
		install(values)
		stream := h.must("template", "multus-vpc", chartDir, "--namespace", namespace, "--values", values)
		if err := c.Apply(t.Context(), []byte(stream)); err != nil {
			t.Errorf("%s: %v", filepath.Base(values), err)
		}
		must(t, c.Do(t.Context(), http.MethodDelete, "/api/v1/namespaces/"+namespace+"/pods", nil, nil)) // that of helm test
		install(least)
	}
	h.must("uninstall", "multus-vpc", "--namespace", namespace)
}
