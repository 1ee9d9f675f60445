// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

type object = map[string]any

// cluster is a real API server with the injector's objects. Nothing serves the webhook yet.
type cluster struct {
	*kubernetes.Cluster
	t        *testing.T
	dir      string
	programs string // the folder of ours
	service  *balancer
	client   *http.Client
}

const configuration = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/multus-vpc-injector"

// raise starts an API server, applies examples/injector, and has the webhook called through a balancer, for there is no
// kube-proxy that would carry calls to the Service.
func raise(t *testing.T) *cluster {
	t.Helper()
	programs, err := stack.Programs()
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubernetes.Start(t.Context(), kubernetes.Config{Programs: programs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if closeErr := k.Close(); closeErr != nil {
			t.Error(closeErr)
		}
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(k.CA)
	c := &cluster{
		Cluster: k, t: t, dir: t.TempDir(), service: balance(t),
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}},
	}
	t.Cleanup(c.client.CloseIdleConnections)
	c.programs = build(t, c.dir)
	definitions, err := stack.Definitions(programs)
	c.must(err)
	c.must(k.Apply(t.Context(), definitions))
	c.install()
	return c
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// build returns the folder of injector, initcontainer and sidecar: MULTUS_VPC_BIN, or a new one.
func build(t *testing.T, dir string) string {
	t.Helper()
	if bin := os.Getenv("MULTUS_VPC_BIN"); bin != "" {
		return bin
	}
	const module = "github.com/multus-vpc/multus-vpc/"
	cmd := exec.Command("go", "build", "-o", dir+"/", module+"injector", module+"initcontainer", module+"sidecar")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// install applies examples/injector, with the one change that the webhook is called by its address.
func (c *cluster) install() {
	c.t.Helper()
	text, err := os.ReadFile("../../examples/injector/injector.yaml")
	c.must(err)
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var o object
		c.must(yaml.Unmarshal([]byte(document), &o))
		if o["kind"] == "MutatingWebhookConfiguration" {
			config := o["webhooks"].([]any)[0].(object)["clientConfig"].(object)
			delete(config, "service")
			config["url"] = "https://" + c.service.address + "/inject"
		}
		changed, err := yaml.Marshal(o)
		c.must(err)
		c.must(c.Apply(c.t.Context(), changed))
	}
}

// asInjector is a kubeconfig of the injector's service account, and its token.
func (c *cluster) asInjector() (kubeconfig, token string) {
	c.t.Helper()
	var got struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	request := object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": object{"expirationSeconds": 3600}}
	c.must(c.Do(c.t.Context(), http.MethodPost, "/api/v1/namespaces/multus-vpc/serviceaccounts/injector/token", request, &got))
	text, err := json.Marshal(object{
		"current-context": "here",
		"contexts":        []object{{"name": "here", "context": object{"cluster": "c", "user": "u"}}},
		"clusters":        []object{{"name": "c", "cluster": object{"server": c.URL, "certificate-authority-data": base64.StdEncoding.EncodeToString(c.CA)}}},
		"users":           []object{{"name": "u", "user": object{"token": got.Status.Token}}},
	})
	c.must(err)
	kubeconfig = filepath.Join(c.dir, "injector.kubeconfig")
	c.must(os.WriteFile(kubeconfig, text, 0o600))
	return kubeconfig, got.Status.Token
}

// namespace makes one, with a Pod Security level or none.
func (c *cluster) namespace(name, level string) {
	c.t.Helper()
	labels := object{}
	if level != "" {
		labels["pod-security.kubernetes.io/enforce"] = level
	}
	c.must(c.Do(c.t.Context(), http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": name, "labels": labels}}, nil))
}

// network makes a NetworkAttachmentDefinition.
func (c *cluster) network(namespace, name string, annotations map[string]string) {
	c.t.Helper()
	c.must(c.Do(c.t.Context(), http.MethodPost, "/apis/k8s.cni.cncf.io/v1/namespaces/"+namespace+"/network-attachment-definitions", object{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": object{"name": name, "annotations": annotations}, "spec": object{"config": `{"cniVersion": "1.0.0", "type": "ipvlan", "master": "eth1"}`},
	}, nil))
}

// created is what came of making a pod.
type created struct {
	pod      object
	warnings []string
	err      error // the API server's refusal
}

// create makes a pod. With query "?dryRun=All" nothing is stored.
func (c *cluster) create(ctx context.Context, namespace, query string, pod object) created {
	body, err := json.Marshal(pod)
	if err != nil {
		return created{err: err}
	}
	var result created
	result.pod, result.warnings, result.err = c.send(ctx, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods"+query, "application/json", body)
	return result
}

// patch sends a JSON patch as the administrator.
func (c *cluster) patch(path string, ops []object) error {
	body, err := json.Marshal(ops)
	if err == nil {
		_, _, err = c.send(c.t.Context(), http.MethodPatch, path, "application/json-patch+json", body)
	}
	return err
}

// send is what the lab's client does, with warnings.
func (c *cluster) send(ctx context.Context, method, path, contentType string, body []byte) (answer object, warnings []string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("Content-Type", contentType)
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	if err = json.Unmarshal(text, &answer); err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s: %s", resp.Status, answer["message"])
	}
	return answer, resp.Header.Values("Warning"), err
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	const patience, pause = 30 * time.Second, 20 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		err := condition()
		if err == nil {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
