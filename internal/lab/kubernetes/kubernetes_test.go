// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubernetes_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

// object is what the tests read of any kind.
type object struct {
	Metadata struct {
		Name string `json:"name"`
		UID  string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		Config string `json:"config"`
	} `json:"spec"`
}

const pods = "/api/v1/namespaces/default/pods"

const aPod = `
apiVersion: v1
kind: Pod
metadata: {name: upf-0}
spec:
  nodeName: worker-1
  containers: [{name: upf, image: upf}]
`

const aNetwork = `
---
# The first document holds nothing.
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: user-plane, namespace: default}
spec:
  config: '{"cniVersion": "1.0.0", "type": "vpcipvlan"}'
`

// TestCluster starts one API server for all of its parts: it takes seconds.
func TestCluster(t *testing.T) {
	programs, err := stack.Programs()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c, err := kubernetes.Start(t.Context(), kubernetes.Config{Programs: programs, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		left(t, dir)
		if _, err := net.Dial("tcp", strings.TrimPrefix(c.URL, "https://")); err == nil {
			t.Error("something still listens")
		}
	})
	t.Run("a pod is made, read, and refused the second time", func(t *testing.T) { makePod(t, c) })
	t.Run("definitions and their objects are applied", func(t *testing.T) { applyNetwork(t, c, programs) })
	t.Run("a service account may what RBAC says", func(t *testing.T) { beServiceAccount(t, c) })
	t.Run("a network namespace reaches it by the same kubeconfig", func(t *testing.T) { reachFromNetns(t, c) })
}

func makePod(t *testing.T, c *kubernetes.Cluster) {
	if err := c.Apply(t.Context(), []byte(aPod)); err != nil {
		t.Fatal(err)
	}
	var got object
	if err := c.Do(t.Context(), http.MethodGet, pods+"/upf-0", nil, &got); err != nil || got.Metadata.UID == "" {
		t.Errorf("read the pod: %+v, %v", got, err)
	}
	again := map[string]any{"metadata": map[string]any{"name": "upf-0"}, "spec": map[string]any{"containers": []any{map[string]any{"name": "upf", "image": "upf"}}}}
	refusal, ok := errors.AsType[*kubernetes.StatusError](c.Do(t.Context(), http.MethodPost, pods, again, nil))
	if !ok || refusal.Code != http.StatusConflict || refusal.Reason != "AlreadyExists" {
		t.Errorf("a second pod of that name: %v, want a conflict", refusal)
	}
}

func applyNetwork(t *testing.T, c *kubernetes.Cluster, programs string) {
	definitions, err := stack.Definitions(programs)
	if err != nil {
		t.Fatal(err)
	}
	if err = c.Apply(t.Context(), append(definitions, aNetwork...)); err != nil {
		t.Fatal(err)
	}
	var got object
	const at = "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/user-plane"
	if err = c.Do(t.Context(), http.MethodGet, at, nil, &got); err != nil || !strings.Contains(got.Spec.Config, "vpcipvlan") {
		t.Errorf("read the network: %+v, %v", got, err)
	}
	for _, list := range []string{"ippools", "overlappingrangeipreservations"} {
		if err = c.Do(t.Context(), http.MethodGet, "/apis/whereabouts.cni.cncf.io/v1alpha1/"+list, nil, nil); err != nil {
			t.Error(err)
		}
	}
	err = c.Apply(t.Context(), []byte("apiVersion: v1\nkind: Pot\nmetadata: {name: flowers}\n"))
	if err == nil || !strings.Contains(err.Error(), "v1 has no kind Pot") {
		t.Errorf("an unknown kind: %v", err)
	}
}

// beServiceAccount asks with a token that the API server issued, as a controller in a pod does.
func beServiceAccount(t *testing.T, c *kubernetes.Cluster) {
	const accounts = "/api/v1/namespaces/default/serviceaccounts"
	err := c.Apply(t.Context(), []byte("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: agent}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var issued struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	if err := c.Do(t.Context(), http.MethodPost, accounts+"/agent/token", map[string]any{}, &issued); err != nil {
		t.Fatal(err)
	}
	admin := *c
	admin.Token = issued.Status.Token
	refusal, ok := errors.AsType[*kubernetes.StatusError](admin.Do(t.Context(), http.MethodGet, pods, nil, nil))
	if !ok || refusal.Code != http.StatusForbidden || !strings.Contains(refusal.Message, "system:serviceaccount:default:agent") {
		t.Errorf("the service account lists pods without a role: %v", refusal)
	}
}

func reachFromNetns(t *testing.T, c *kubernetes.Cluster) {
	p, err := pod.New(fmt.Sprintf("kubernetes-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if removeErr := p.Delete(); removeErr != nil {
			t.Error(removeErr)
		}
	})
	ask := func() error { return askFrom(t, c, p.Netns) }
	if err = ask(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without forwarding: %v, want %v", err, syscall.ECONNREFUSED)
	}
	f, err := c.Forward(t.Context(), p.Netns)
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
}

// askFrom asks the API server for its version from a namespace.
func askFrom(t *testing.T, c *kubernetes.Cluster, path string) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	transport.DialContext = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = netns.Do(path, func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL+"/version", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

// left fails the test when a process has the folder as its working folder.
func left(t *testing.T, dir string) {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range folders {
		if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, dir) { // others end while we look
			t.Errorf("%s: a process is left in %s", link, at)
		}
	}
}

func TestAProgramThatEndsSaysWhy(t *testing.T) {
	programs := t.TempDir()
	for name, script := range map[string]string{"etcd": "#!/bin/sh\nexec sleep 60\n", "kube-apiserver": "#!/bin/sh\necho no room >&2; exit 3\n"} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	c, err := kubernetes.Start(t.Context(), kubernetes.Config{Programs: programs, Dir: dir})
	if err == nil {
		t.Fatal(c.Close())
	}
	for _, want := range []string{"kube-apiserver ended: exit status 3", "no room"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	left(t, dir)
	if _, err := kubernetes.Start(t.Context(), kubernetes.Config{Programs: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "start etcd") {
		t.Errorf("without programs: %v", err)
	}
}
