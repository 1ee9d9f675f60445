// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

func TestPromisedReadsBothFormsOfTheAnnotation(t *testing.T) {
	tests := map[string]struct {
		annotation string
		want       podsync.Promise
	}{
		"none":             {"", nil},
		"one name":         {"ipvlan-multus", podsync.Promise{"net1"}},
		"two with spaces":  {" multus/ipvlan-1 , ipvlan-2 ", podsync.Promise{"net1", "net2"}},
		"a named one":      {"multus/ipvlan-1@n3, ipvlan-2", podsync.Promise{"n3", "net2"}},
		"JSON":             {`[{"name":"a"},{"name":"b","namespace":"x","interface":"n6","ips":["10.10.1.80/24"]}]`, podsync.Promise{"net1", "n6"}},
		"JSON, and spaces": {"\n [ {\"name\": \"a\"} ]", podsync.Promise{"net1"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := promised(tt.annotation)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, bad := range []string{"a,,b", "a@", "a b", "A", "[{}]", `{"name":"a"}`, "[", "a@a-name-that-is-too-long", "x/y/z"} {
		if got, err := promised(bad); err == nil || !strings.Contains(err.Error(), "networks annotation") {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func FuzzPromised(f *testing.F) {
	for _, s := range []string{"", "a", "x/a@n1,b", `[{"name":"a","interface":"n1"}]`, "[{}]", "a@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := promised(s)
		if err != nil && len(names) > 0 {
			t.Errorf("%q: %q and %v", s, names, err)
		}
		for _, n := range names {
			if n == "" {
				t.Errorf("%q promises an interface without a name", s)
			}
		}
	})
}

func parsed(t *testing.T, env map[string]string, args ...string) (options, error) {
	t.Helper()
	return parse("sidecar", Stay, args, func(k string) string { return env[k] }, &bytes.Buffer{})
}

func TestFlagsComeBeforeTheEnvironment(t *testing.T) {
	o, err := parsed(t, map[string]string{
		"MULTUS_VPC_NETWORKS": "a,b@n9", "MULTUS_VPC_FLOATING": "10.10.1.90-10.10.1.95, 2001:db8::/126", "MULTUS_VPC_NODE_ADDRESS": "10.10.12.20",
		"MULTUS_VPC_TIMEOUT": "5s",
	}, "--timeout", "7s", "--on-conflict=never", "initContainers")
	if err != nil {
		t.Fatal(err)
	}
	if o.mode != Once || o.timeout.Seconds() != 7 || o.sync.OnConflict != "never" || o.nodeAddress != netip.MustParseAddr("10.10.12.20") || len(o.sync.Floating) != 2 {
		t.Errorf("read %+v", o)
	}
	if diff := cmp.Diff(podsync.Promise{"net1", "n9"}, o.promise); diff != "" {
		t.Error(diff)
	}
}

func TestAllThatIsWrongIsToldAtOnce(t *testing.T) {
	_, err := parsed(t, map[string]string{"MULTUS_VPC_NODE_ADDRESS": "node-1"},
		"--floating=10.10.1.1/24", "--on-conflict=steal", "--timeout=-1s", "--log-level=loud", "--networks=a@@", "run")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, says := range []string{"10.10.1.0/24", `--on-conflict "steal": want wait-then-reassign`, `--timeout "-1s"`, `--log-level "loud"`, `--node-address "node-1"`, "a@@", `argument "run"`} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%q does not say %q", err, says)
		}
	}
}

func TestAskPassesOnWhatTheSidecarSays(t *testing.T) {
	m := newMetrics()
	promise := podsync.Promise{"net1"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := m.readiness(promise); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	ask := func() (int, string) {
		var out bytes.Buffer
		code := Program{Name: "sidecar", Mode: Stay, Args: []string{"--metrics-address", strings.TrimPrefix(server.URL, "http://"), "ready"}, Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &out}.Run(t.Context())
		return code, out.String()
	}
	steps := []struct {
		report *podsync.Report
		code   int
		says   string
	}{
		{nil, ExitFailed, "have not been read"},
		{&podsync.Report{}, ExitFailed, "net1 has not appeared"},
		{&podsync.Report{Interfaces: []podsync.InterfaceReport{{Name: "net1"}}, Addresses: []podsync.AddressReport{{Addr: netip.MustParseAddr("10.10.1.80"), Interface: "net1", State: podsync.Pending}}}, ExitFailed, "10.10.1.80 on net1 is not registered yet"},
		{&podsync.Report{Interfaces: []podsync.InterfaceReport{{Name: "net1"}}, Addresses: []podsync.AddressReport{{Addr: netip.MustParseAddr("10.10.1.80"), Interface: "net1", State: podsync.Registered}}}, ExitOK, "ready"},
	}
	for _, s := range steps {
		if s.report != nil {
			m.changed(*s.report)
		}
		if code, out := ask(); code != s.code || !strings.Contains(out, s.says) {
			t.Errorf("%+v: exit code %d, %q", s.report, code, out)
		}
	}
	server.Close()
	if code, _ := ask(); code != ExitFailed {
		t.Errorf("exit code %d without a sidecar", code)
	}
}

func TestAskWaitsUntilTheSidecarIsReady(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 3 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	for wait, want := range map[string]int{"1m": ExitOK, "1ms": ExitFailed} {
		asked = 0
		var out bytes.Buffer
		args := []string{"--metrics-address", strings.TrimPrefix(server.URL, "http://"), "--wait", wait, "ready"}
		code := Program{Name: "sidecar", Mode: Stay, Args: args, Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &out}.Run(t.Context())
		if code != want {
			t.Errorf("--wait %s: exit code %d after %d questions: %s", wait, code, asked, &out)
		}
	}
}
