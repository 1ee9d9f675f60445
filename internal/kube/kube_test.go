// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/kube"
)

// apiServer is an API server with the rules that matter here: a token, RBAC, pods by namespace and name. It answers
// nothing but GETs of a pod's metadata, and fails the test on others.
type apiServer struct {
	*httptest.Server
	t     *testing.T
	token string
	pods  map[string]string // "namespace/name" to the JSON of its metadata
	deny  bool              // RBAC says no
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{t: t, token: "secret-1", pods: map[string]string{}}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var namespace, name string
	segments := strings.Split(r.URL.EscapedPath(), "/")
	if len(segments) == 7 {
		namespace, name = segments[4], segments[6]
	}
	if want := "/api/v1/namespaces/" + namespace + "/pods/" + name; r.Method != http.MethodGet || r.URL.EscapedPath() != want {
		s.t.Errorf("unexpected request %s %s", r.Method, r.RequestURI)
	}
	if accept := r.Header.Get("Accept"); !strings.Contains(accept, "as=PartialObjectMetadata") {
		s.t.Errorf("asks for more than metadata: %s", accept)
	}
	if agent := r.UserAgent(); agent != "agent/test" {
		s.t.Errorf("user agent is %q", agent)
	}
	metadata, known := s.pods[namespace+"/"+name]
	switch {
	case r.Header.Get("Authorization") != "Bearer "+s.token:
		refuse(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
	case s.deny:
		refuse(w, http.StatusForbidden, "Forbidden", fmt.Sprintf("pods %q is forbidden: User %q cannot get resource", name, "agent"))
	case !known:
		refuse(w, http.StatusNotFound, "NotFound", fmt.Sprintf("pods %q not found", name))
	default:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":%s}`, metadata)
	}
}

// refuse answers as an API server does.
func refuse(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code,
	})
}

func (s *apiServer) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// serviceAccount is a pod's access to the server.
func (s *apiServer) serviceAccount() kube.Config {
	s.t.Helper()
	at, err := url.Parse(s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	write(s.t, filepath.Join(dir, "token"), s.token+"\n")
	write(s.t, filepath.Join(dir, "ca.crt"), string(s.ca()))
	return kube.Config{ServiceHost: at.Hostname(), ServicePort: at.Port(), ServiceAccountDir: dir, UserAgent: "agent/test"}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, cfg kube.Config) *kube.Client {
	t.Helper()
	c, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	ownedByDB = `"ownerReferences":[{"apiVersion":"apps/v1","kind":"StatefulSet","name":"db","uid":"s1","controller":true}]`
	indexed3  = `"labels":{"apps.kubernetes.io/pod-index":"3"}`
)

func TestOrdinal(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		name, metadata string
		set            string
		ordinal        int
		problem        string
	}{
		"labelled":                   {name: "db-3", metadata: indexed3 + "," + ownedByDB, set: "db", ordinal: 3},
		"before Kubernetes 1.28":     {name: "db-12", metadata: ownedByDB, set: "db", ordinal: 12},
		"first":                      {name: "db-0", metadata: ownedByDB, set: "db"},
		"nobody's":                   {name: "db-3", metadata: indexed3},
		"a ReplicaSet's":             {name: "db-3", metadata: `"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"db","controller":true}]`},
		"another API's StatefulSet":  {name: "db-3", metadata: `"ownerReferences":[{"apiVersion":"apps.kruise.io/v1beta1","kind":"StatefulSet","name":"db","controller":true}]`},
		"owned but not controlled":   {name: "db-3", metadata: `"ownerReferences":[{"apiVersion":"apps/v1","kind":"StatefulSet","name":"db"}]`},
		"label was changed":          {name: "db-4", metadata: indexed3 + "," + ownedByDB, problem: `label apps.kubernetes.io/pod-index is "3", though the name ends in 4`},
		"name is another set's":      {name: "web-3", metadata: indexed3 + "," + ownedByDB, problem: "though its name is not db and a number"},
		"name ends in no number":     {name: "db-x", metadata: ownedByDB, problem: "though its name is not db and a number"},
		"number is not its own text": {name: "db-03", metadata: ownedByDB, problem: "though its name is not db and a number"},
		"number is beyond the API's": {name: "db-2147483648", metadata: ownedByDB, problem: "though its name is not db and a number"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAPIServer(t)
			s.pods["prod/"+tc.name] = fmt.Sprintf(`{"name":%q,"namespace":"prod","uid":"u1",%s}`, tc.name, tc.metadata)
			set, ordinal, err := client(t, s.serviceAccount()).Ordinal(t.Context(), attachment.Pod{Namespace: "prod", Name: tc.name, UID: "u1"})
			if set != tc.set || ordinal != tc.ordinal || (err == nil) != (tc.problem == "") {
				t.Fatalf("got %q, %d, %v", set, ordinal, err)
			}
			if err != nil && (!strings.Contains(err.Error(), tc.problem) || !strings.HasPrefix(err.Error(), "pod prod/"+tc.name+": ")) {
				t.Errorf("error %q does not say %q", err, tc.problem)
			}
		})
	}
}

func TestOrdinalIsOfTheVeryPod(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t)
	s.pods["prod/db-3"] = `{"name":"db-3","namespace":"prod","uid":"u2",` + ownedByDB + `}`
	c := client(t, s.serviceAccount())
	if _, _, err := c.Ordinal(t.Context(), attachment.Pod{Namespace: "prod", Name: "db-3", UID: "u1"}); err == nil ||
		!strings.Contains(err.Error(), "has UID u2, not u1: it has been replaced") {
		t.Errorf("another pod of that name: %v", err)
	}
	if set, n, err := c.Ordinal(t.Context(), attachment.Pod{Namespace: "prod", Name: "db-3"}); set != "db" || n != 3 || err != nil {
		t.Errorf("a runtime that does not say the UID: %q, %d, %v", set, n, err)
	}
}

func TestOrdinalSaysWhyItCannotTell(t *testing.T) {
	t.Parallel()
	db3 := attachment.Pod{Namespace: "prod", Name: "db-3"}
	tests := map[string]struct {
		pod    attachment.Pod
		change func(*apiServer, *kube.Config)
		want   string
	}{
		"no such pod":      {db3, func(*apiServer, *kube.Config) {}, `get pod prod/db-3: pods "db-3" not found`},
		"forbidden":        {db3, func(s *apiServer, _ *kube.Config) { s.deny = true }, `"agent" cannot get resource; give the agent's service account get on pods`},
		"expired token":    {db3, func(s *apiServer, _ *kube.Config) { s.token = "secret-2" }, "get pod prod/db-3: Unauthorized"},
		"server is away":   {db3, func(s *apiServer, _ *kube.Config) { s.Close() }, "connection refused"},
		"another's server": {db3, func(_ *apiServer, c *kube.Config) { c.ServiceHost = "localhost" }, "certificate is valid for"},
		"no name":          {attachment.Pod{Namespace: "prod"}, func(*apiServer, *kube.Config) {}, "no such name can be"},
		"no namespace":     {attachment.Pod{Name: "db-3"}, func(*apiServer, *kube.Config) {}, "no such name can be"},
		"name is a path":   {attachment.Pod{Namespace: "prod", Name: "../secrets"}, func(*apiServer, *kube.Config) {}, "no such name can be"},
		"namespace climbs": {attachment.Pod{Namespace: "..", Name: "db-3"}, func(*apiServer, *kube.Config) {}, "no such name can be"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAPIServer(t)
			cfg := s.serviceAccount()
			tc.change(s, &cfg)
			_, _, err := client(t, cfg).Ordinal(t.Context(), tc.pod)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestOrdinalEndsWithItsContext(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	defer hang.Close()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, file, kubeconfig(hang.URL, "{}", "{}"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, _, err := client(t, kube.Config{Kubeconfig: file}).Ordinal(ctx, attachment.Pod{Namespace: "prod", Name: "db-3"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// kubeconfig has one context; cluster and user are YAML in one line.
func kubeconfig(server, cluster, user string) string {
	cluster = strings.Replace(cluster, "{", "{server: '"+server+"', ", 1)
	return fmt.Sprintf(`
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: %s}]
users: [{name: u, user: %s}]
`, cluster, user)
}

func TestKubeconfigGoesBeforeTheServiceAccount(t *testing.T) {
	t.Parallel()
	inPod, s := newAPIServer(t), newAPIServer(t)
	s.token = "of-the-file"
	s.pods["prod/db-3"] = `{"name":"db-3",` + ownedByDB + `}`
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.pem"), string(s.ca()))
	write(t, filepath.Join(dir, "token"), s.token)
	cfg := inPod.serviceAccount()
	cfg.Kubeconfig = filepath.Join(dir, "config")
	write(t, cfg.Kubeconfig, kubeconfig(s.URL, "{certificate-authority: ca.pem}", "{tokenFile: token}")) // beside the file
	if set, n, err := client(t, cfg).Ordinal(t.Context(), attachment.Pod{Namespace: "prod", Name: "db-3"}); set != "db" || n != 3 || err != nil {
		t.Errorf("got %q, %d, %v", set, n, err)
	}
}

func TestNewTellsNoClusterFromABrokenOne(t *testing.T) {
	t.Parallel()
	bare, broken := t.TempDir(), t.TempDir()
	write(t, filepath.Join(broken, "token"), "secret")
	write(t, filepath.Join(broken, "config"), kubeconfig("https://127.0.0.1:1", "{}", "{tokenFile: absent}"))
	write(t, filepath.Join(broken, "empty"), "")
	inPod := kube.Config{ServiceHost: "127.0.0.1", ServicePort: "1", ServiceAccountDir: bare}
	tests := map[string]struct {
		cfg   kube.Config
		noAPI bool
		want  string
	}{
		"nothing":                 {kube.Config{}, true, "no access to a Kubernetes API is configured"},
		"no token in the pod":     {inPod, true, "this pod has no service account token in " + bare},
		"no CA in the pod":        {kube.Config{ServiceHost: "127.0.0.1", ServicePort: "1", ServiceAccountDir: broken}, false, "ca.crt"},
		"kubeconfig is absent":    {kube.Config{Kubeconfig: filepath.Join(bare, "config")}, false, "no such file"},
		"kubeconfig names others": {kube.Config{Kubeconfig: filepath.Join(broken, "config")}, false, "absent"},
		"kubeconfig is empty":     {kube.Config{Kubeconfig: filepath.Join(broken, "empty")}, false, "empty: "},
		"empty beside a pod's":    {kube.Config{Kubeconfig: filepath.Join(broken, "empty"), ServiceHost: "127.0.0.1", ServicePort: "1"}, false, "empty: "},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := kube.New(tc.cfg)
			if err == nil || c != nil || errors.Is(err, kube.ErrNoAPI) != tc.noAPI || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v; want %q", c, err, tc.want)
			}
		})
	}
}
