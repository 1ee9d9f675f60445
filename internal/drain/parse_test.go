// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain_test

import (
	"encoding/base64"
	"encoding/pem"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/drain"
)

// authority is a certificate as a cluster of EKS has one.
const authority = `-----BEGIN CERTIFICATE-----
MIIBVTCB/aADAgECAgEBMAoGCCqGSM49BAMCMBUxEzARBgNVBAMTCmt1YmVybmV0
-----END CERTIFICATE-----
`

func TestParse(t *testing.T) {
	t.Parallel()
	ca := base64.StdEncoding.EncodeToString([]byte(validPEM(t)))
	all := map[string]string{
		drain.VarNodes: "true", drain.VarClusterName: "prod", drain.VarClusterEndpoint: "https://0123.gr7.us-west-2.eks.amazonaws.com", drain.VarClusterCA: ca,
	}
	want := drain.Config{
		Nodes: true, Timeout: 10 * time.Minute, OnTimeout: drain.Continue,
		Cluster: drain.Cluster{Name: "prod", Endpoint: "https://0123.gr7.us-west-2.eks.amazonaws.com", CA: []byte(validPEM(t))},
	}
	for name, tc := range map[string]struct {
		change map[string]string
		want   func(*drain.Config)
		errs   []string
	}{
		"defaults":       {},
		"blanks":         {change: map[string]string{drain.VarNodes: " Yes ", drain.VarClusterName: " prod "}},
		"everything":     {change: map[string]string{drain.VarTimeout: "90s", drain.VarOnTimeout: "force"}, want: func(c *drain.Config) { c.Timeout, c.OnTimeout = 90*time.Second, drain.Force }},
		"off":            {change: map[string]string{drain.VarNodes: "false", drain.VarTimeout: "x"}, want: func(c *drain.Config) { *c = drain.Config{} }},
		"not mentioned":  {change: map[string]string{drain.VarNodes: "", drain.VarClusterCA: ""}, want: func(c *drain.Config) { *c = drain.Config{} }},
		"neither":        {change: map[string]string{drain.VarNodes: "maybe"}, errs: []string{`DrainNodes: "maybe" is neither true nor false`}},
		"too long":       {change: map[string]string{drain.VarTimeout: "1h"}, errs: []string{"DrainTimeout: 1h is not between 10s and 12m0s"}},
		"too short":      {change: map[string]string{drain.VarTimeout: "1s"}, errs: []string{"DrainTimeout: 1s is not between 10s and 12m0s"}},
		"a plain number": {change: map[string]string{drain.VarTimeout: "600"}, errs: []string{`DrainTimeout: "600" is no duration, such as 90s or 10m`}},
		"a path":         {change: map[string]string{drain.VarClusterEndpoint: "https://a/b"}, errs: []string{`ClusterEndpoint: "https://a/b" is no URL such as`}},
		"all at once": {
			change: map[string]string{drain.VarTimeout: "soon", drain.VarOnTimeout: "kill", drain.VarClusterName: "", drain.VarClusterEndpoint: "http://a", drain.VarClusterCA: ""},
			errs: []string{
				`DrainTimeout: "soon" is no duration`, `DrainOnTimeout: "kill" is neither continue nor force`, "ClusterName: is missing",
				`ClusterEndpoint: "http://a" is no URL`, "ClusterCA: is missing",
			},
		},
		"no base64":      {change: map[string]string{drain.VarClusterCA: "-----BEGIN"}, errs: []string{"ClusterCA: is not in base64"}},
		"no certificate": {change: map[string]string{drain.VarClusterCA: base64.StdEncoding.EncodeToString([]byte(authority))}, errs: []string{"ClusterCA: has no certificate in PEM"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			given := maps.Clone(all)
			maps.Copy(given, tc.change)
			got, err := drain.Parse(func(name string) string {
				if !slices.Contains(drain.Vars(), name) {
					t.Errorf("%s is not among the variables", name)
				}
				return given[name]
			})
			if (err == nil) != (tc.errs == nil) {
				t.Fatalf("got %v", err)
			}
			for _, e := range tc.errs {
				if !strings.Contains(err.Error(), e) {
					t.Errorf("%q lacks %q", err, e)
				}
			}
			if err != nil {
				if n := strings.Count(err.Error(), "\n") + 1; n != len(tc.errs) {
					t.Errorf("%d errors, want %d:\n%v", n, len(tc.errs), err)
				}
				return
			}
			expected := want
			if tc.want != nil {
				tc.want(&expected)
			}
			if diff := cmp.Diff(expected, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzParse: what is accepted is within bounds.
func FuzzParse(f *testing.F) {
	f.Add("true", "10m", "force", "prod", "https://a", "YWJj")
	f.Add("yes", "12m", "continue", "p", "https://[::1]:443/", "")
	f.Add("", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, nodes, timeout, action, name, endpoint, ca string) {
		given := map[string]string{
			drain.VarNodes: nodes, drain.VarTimeout: timeout, drain.VarOnTimeout: action, drain.VarClusterName: name,
			drain.VarClusterEndpoint: endpoint, drain.VarClusterCA: ca,
		}
		c, err := drain.Parse(func(name string) string { return given[name] })
		if err != nil || !c.Nodes {
			return
		}
		if c.Timeout < 10*time.Second || c.Timeout > 12*time.Minute || c.Cluster.Name == "" || len(c.Cluster.CA) == 0 || !strings.HasPrefix(c.Cluster.Endpoint, "https://") {
			t.Errorf("accepted %+v", c)
		}
	})
}

// validPEM is a certificate that can be parsed.
func validPEM(t *testing.T) string {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}
