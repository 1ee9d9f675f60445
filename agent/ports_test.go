// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/kube"
)

// TestPodsAreNilWithoutKubernetes: nil itself, since the pool compares with it.
func TestPodsAreNilWithoutKubernetes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(file, []byte(`{current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: "https://a"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		cfg       kube.Config
		want, bad bool
		says      string
	}{
		"outside a cluster":            {cfg: kube.Config{}, says: "works without the Kubernetes API"},
		"in a pod without its account": {cfg: kube.Config{ServiceHost: "10.0.0.1", ServicePort: "443", ServiceAccountDir: dir}, says: "no service account token"},
		"kubeconfig is not there":      {cfg: kube.Config{Kubeconfig: filepath.Join(dir, "absent")}, bad: true},
		"kubeconfig":                   {cfg: kube.Config{Kubeconfig: file}, want: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			got, err := api(tc.cfg, slog.New(slog.NewTextHandler(&out, nil)))
			if (got != nil) != tc.want || (err != nil) != tc.bad || !strings.Contains(out.String(), tc.says) {
				t.Errorf("got %v, %v; log %q", got, err, &out)
			}
		})
	}
}
