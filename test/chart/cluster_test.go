// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chart

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// TestUpgradeKeepsTheCertificate: what the injector has written into its Secret and its webhook is not the chart's to change, also where
// the chart changes something beside it; and there is one release to a cluster.
func TestUpgradeKeepsTheCertificate(t *testing.T) {
	t.Parallel()
	h, c := newHelm(t), raise(t)
	h.env = append(h.env, "KUBECONFIG="+c.Kubeconfig)
	upgrade := func(values string) {
		t.Helper()
		h.must("upgrade", "--install", "multus-vpc", chartDir, "--namespace", namespace, "--create-namespace",
			"--set=image.repository=a,injector.enabled=true", "--set="+values)
	}
	upgrade("injector.replicas=2")
	const secret, webhook = "/api/v1/namespaces/" + namespace + "/secrets/multus-vpc-injector",
		"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/multus-vpc-injector"
	var o object
	must(t, c.Do(t.Context(), http.MethodGet, secret, nil, &o))
	o["data"] = object{"tls.crt": "Y2VydGlmaWNhdGU="}
	must(t, c.Do(t.Context(), http.MethodPut, secret, o, nil))
	var w object
	must(t, c.Do(t.Context(), http.MethodGet, webhook, nil, &w))
	at(t, w, "webhooks", 0, "clientConfig").(object)["caBundle"] = base64.StdEncoding.EncodeToString(c.CA)
	must(t, c.Do(t.Context(), http.MethodPut, webhook, w, nil))

	upgrade("injector.timeoutSeconds=7,injector.excludedNamespaces={kube-system},image.tag=other")
	var newSecret, newWebhook object
	must(t, c.Do(t.Context(), http.MethodGet, secret, nil, &newSecret))
	must(t, c.Do(t.Context(), http.MethodGet, webhook, nil, &newWebhook))
	if got := at(t, newWebhook, "webhooks", 0, "timeoutSeconds"); got != 7.0 {
		t.Errorf("the webhook's timeout is %v: nothing was changed", got)
	}
	if diff := cmp.Diff(o["data"], newSecret["data"]); diff != "" {
		t.Errorf("the Secret's data (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(at(t, w, "webhooks", 0, "clientConfig"), at(t, newWebhook, "webhooks", 0, "clientConfig")); diff != "" {
		t.Errorf("the webhook's clientConfig (-before +after):\n%s", diff)
	}
	_, err := h.try("install", "other", chartDir, "--namespace", "other", "--create-namespace", "--set=image.repository=a")
	if err == nil || !strings.Contains(err.Error(), "cannot be imported into the current release") {
		t.Errorf("a second release: %v", err)
	}
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
			return
		}
		if notes := h.must("get", "notes", "multus-vpc", "--namespace", namespace); strings.Contains(notes, "<no value>") || strings.Contains(notes, "%!") {
			t.Errorf("%s: %s", filepath.Base(values), notes)
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
