// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/multus-vpc/multus-vpc/internal/inject"
	"github.com/multus-vpc/multus-vpc/internal/webhook"
)

func parsed(t *testing.T, env map[string]string, args ...string) (options, error) {
	t.Helper()
	return parseOptions(args, func(k string) string { return env[k] }, &bytes.Buffer{})
}

func TestFlagsComeBeforeTheEnvironment(t *testing.T) {
	o, err := parsed(t, map[string]string{"MULTUS_VPC_IMAGE": "a:1", "MULTUS_VPC_VIA": "ec2", "POD_NAMESPACE": "infra", "MULTUS_VPC_LINGER": "9s"},
		"--image=b:2", "--env=AWS_REGION=us-west-2, NO_PROXY=10.0.0.0/8,.internal,X=a=b", "--memory-limit=0", "--cpu-limit=200m")
	if err != nil {
		t.Fatal(err)
	}
	want := inject.Config{
		Image: "b:2", PullPolicy: corev1.PullIfNotPresent, Via: inject.ViaEC2, SyncDir: "/run/multus-vpc/sync",
		Env:       []corev1.EnvVar{{Name: "AWS_REGION", Value: "us-west-2"}, {Name: "NO_PROXY", Value: "10.0.0.0/8,.internal"}, {Name: "X", Value: "a=b"}},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")}, Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m")}},
	}
	if diff := cmp.Diff(want, o.inject); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"multus-vpc-injector.infra.svc"}, o.certs.Hosts); diff != "" || o.linger != 9*time.Second {
		t.Error(diff, o.linger)
	}
}

func TestVariablesOneToALine(t *testing.T) {
	for text, want := range map[string][]corev1.EnvVar{
		"GODEBUG=http2client=0,netdns=go\n":       {{Name: "GODEBUG", Value: "http2client=0,netdns=go"}},
		"\n A=1,2 \nhttp_proxy=http://p:1/?a=b\n": {{Name: "A", Value: "1,2"}, {Name: "http_proxy", Value: "http://p:1/?a=b"}},
	} {
		o, err := parsed(t, nil, "--image=a", "--env="+text)
		if diff := cmp.Diff(want, o.inject.Env); diff != "" || err != nil {
			t.Errorf("%q: %v\n%s", text, err, diff)
		}
	}
}

func TestNoPodGetsAVariableThatTheAPIRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"AWS REGION=us-west-2": `--env: "AWS REGION" is no name of a variable: a valid environment variable name must`,
		"A=1,2B=3":             `--env: "2B" is no name`,
		"=x":                   `--env: "" is no name`,
		"A=1\nx":               `--env: "x" is not of the form NAME=VALUE`,
	} {
		if _, err := parsed(t, nil, "--image=a", "--env="+text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

func TestAllThatIsWrongIsToldAtOnce(t *testing.T) {
	var stderr bytes.Buffer
	code := run(t.Context(), []string{
		"--via=imds", "--env=AWS_REGION", "--sync-dir=sync", "--memory-limit=1Mi", "--cpu-limit=1m", "--cpu-request=much", "--image-pull-policy=Sometimes",
		"--cert-delay=soon", "--log-level=loud", "now",
	}, func(string) string { return "" }, &stderr)
	if code != 2 {
		t.Errorf("exit status %d", code)
	}
	for _, says := range []string{
		`--image: must name an image`, `--via: "imds" is not agent or ec2`, `--env: "AWS_REGION" is not of the form NAME=VALUE`,
		`--sync-dir: "sync"`, `--memory-limit: 1Mi is less than the request of 32Mi`, `--cpu-request: "much"`, `--image-pull-policy: "Sometimes"`,
		`--cert-delay: "soon"`, `--log-level: "loud"`, `unexpected argument "now"`, "hint: injector -h",
	} {
		if !strings.Contains(stderr.String(), says) {
			t.Errorf("does not say %q:\n%s", says, &stderr)
		}
	}
	if _, err := parsed(t, nil, "--image=a", "--authority-validity=1h", "--cert-delay=30m"); err == nil || !strings.Contains(err.Error(), "too short-lived") {
		t.Errorf("certificates that cannot rotate: %v", err)
	}
}

func TestItNeedsACluster(t *testing.T) {
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"--image=a"}, func(string) string { return "" }, &stderr); code != 1 || !strings.Contains(stderr.String(), "no access to a Kubernetes API") {
		t.Errorf("exit status %d: %s", code, &stderr)
	}
}

// kept is a certificate of which a test says how it is.
type kept struct{ err error }

func (k *kept) Run(ctx context.Context)                                    { <-ctx.Done() }
func (k *kept) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, k.err }
func (k *kept) Ready() error                                               { return k.err }
func (k *kept) Expires() time.Time                                         { return time.Unix(1, 0) }
func (k *kept) Failures() uint64                                           { return 3 }

func TestReadyFollowsTheCertificate(t *testing.T) {
	k := &kept{err: errors.New("no certificate")}
	serving, leave := context.WithCancel(t.Context())
	handler := newMetrics(k).handler(serving)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	is := func(path string, wantCode int, wantText string) {
		t.Helper()
		if code, text := get(path); code != wantCode || text != wantText {
			t.Errorf("%s: %d %q, want %d %q", path, code, text, wantCode, wantText)
		}
	}
	is("/readyz", http.StatusServiceUnavailable, "no certificate")
	is("/healthz", http.StatusOK, "ok")
	k.err = nil
	is("/readyz", http.StatusOK, "ok")
	leave()
	is("/readyz", http.StatusServiceUnavailable, "leaving")
	is("/healthz", http.StatusOK, "ok")
}

// TestMetricsAreDocumented compares docs/injector.md with what is served, type, labels and meaning.
func TestMetricsAreDocumented(t *testing.T) {
	m := newMetrics(&kept{})
	for _, r := range webhook.Results() {
		m.observe(r, string(inject.Native), time.Millisecond)
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var real, documented []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "multusvpc_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		if slices.Sort(labels); len(labels) == 0 {
			labels = []string{"–"}
		}
		real = append(real, strings.Join([]string{f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, " "), f.GetHelp()}, " | "))
	}
	text, err := os.ReadFile("../docs/injector.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(multusvpc_\\w+)` \\| (.*) \\|$").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, row[1]+" | "+row[2])
	}
	if diff := cmp.Diff(real, documented); diff != "" {
		t.Error(diff)
	}
}
