// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const (
	networks = "k8s.v1.cni.cncf.io/networks"
	asks     = "multus-vpc.io/sync"
	via      = "multus-vpc.io/via"
	samples  = "aws-multus-eni-mgmt-sidecar/inject"
)

// bare is a pod with one container.
func bare(annotations map[string]string, change ...func(spec object)) object {
	spec := object{"containers": []object{{"name": "app", "image": "app"}}}
	for _, f := range change {
		f(spec)
	}
	return object{"metadata": object{"generateName": "app-", "annotations": annotations}, "spec": spec}
}

// containers are the names in one of a pod's lists.
func containers(pod object, list string) (names []string) {
	spec, _ := pod["spec"].(object)
	items, _ := spec[list].([]any)
	for _, item := range items {
		names = append(names, item.(object)["name"].(string))
	}
	return names
}

// TestAdmission is one story on one API server, for starting it takes seconds.
func TestAdmission(t *testing.T) {
	t.Parallel()
	c := raise(t)
	c.namespace("restricted", "restricted")
	c.network("default", "quiet", nil)
	c.network("default", "asks", map[string]string{asks: "native"})
	steps := []struct {
		name string
		do   func(*testing.T, *cluster)
	}{
		{"nothing else is blocked without an injector", othersAreMade},
		{"with two replicas", func(t *testing.T, c *cluster) {
			kubeconfig, token := c.asInjector()
			one, two := c.start(kubeconfig), c.start(kubeconfig)
			for _, r := range []*replica{one, two} {
				eventually(t, "a replica is ready", r.ready)
			}
			c.service.endpoints(one, two)
			for _, step := range []struct {
				name string
				do   func(*testing.T, *cluster)
			}{
				{"pods of workloads", podsOfWorkloads},
				{"what pods ask for", whatPodsAskFor},
				{"refusals", refusals},
				{"quality of service", classes},
				{"the programs' own words", programsWords},
				{"the injector's own pod", ownPod},
				{"examples", examples},
				{"who writes second", func(t *testing.T, c *cluster) { whoWritesSecond(t, c, kubeconfig) }},
				{"certificates of somebody else", func(t *testing.T, c *cluster) { certificatesOfAnother(t, c, kubeconfig) }},
				{"the cluster's own pods", clustersOwn},
				{"reinvocation", reinvocation},
				{"dry run", dryRun},
				{"objects applied again", appliedAgain},
				{"metrics", func(t *testing.T, _ *cluster) { counted(t, one, two) }},
				{"no right beyond the manifest's", func(t *testing.T, c *cluster) { noMoreRights(t, c, token) }},
			} {
				t.Run(step.name, func(t *testing.T) { step.do(t, c.with(t)) })
			}
			for _, r := range []*replica{one, two} {
				r.stop()
				if said := r.said(); strings.Contains(said, "forbidden") || strings.Contains(said, `"level":"ERROR"`) {
					t.Errorf("a replica complained:\n%s", said)
				}
			}
			c.service.endpoints()
		}},
		{"nothing else is blocked when the injector is gone", othersAreMade},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) { step.do(t, c.with(t)) })
	}
}

// with is the cluster for a subtest.
func (c *cluster) with(t *testing.T) *cluster {
	other := *c
	other.t = t
	return &other
}

// othersAreMade: with nobody to call, only pods that need us cannot be made.
func othersAreMade(t *testing.T, c *cluster) {
	host := func(spec object) { spec["hostNetwork"] = true }
	for name, p := range map[string]struct {
		namespace string
		pod       object
		says      string
	}{
		"no annotation":                     {"default", bare(nil), ""},
		"another annotation":                {"default", bare(map[string]string{"a": "b"}), ""},
		"kube-system":                       {"kube-system", bare(map[string]string{networks: "quiet", asks: "native"}), ""},
		"our own namespace":                 {"multus-vpc", bare(map[string]string{networks: "quiet", asks: "native"}), ""},
		"the host's network and a network":  {"default", bare(map[string]string{networks: "quiet"}, host), ""},
		"a network":                         {"default", bare(map[string]string{networks: "quiet"}), "failed calling webhook"},
		"the host's network, and asks":      {"default", bare(map[string]string{asks: "init"}, host), "failed calling webhook"},
		"a network, in another namespace":   {"restricted", bare(map[string]string{networks: "quiet"}), "failed calling webhook"},
		"the samples' annotation by itself": {"default", bare(map[string]string{samples: "yes"}), "failed calling webhook"},
	} {
		got := c.create(t.Context(), p.namespace, "", p.pod)
		if (got.err != nil) != (p.says != "") || got.err != nil && !strings.Contains(got.err.Error(), p.says) {
			t.Errorf("%s: %v, want %q", name, got.err, p.says)
		}
	}
}

func whatPodsAskFor(t *testing.T, c *cluster) {
	for name, tt := range map[string]struct {
		annotations map[string]string
		init, list  []string
		warns       string
	}{
		"nothing":                 {map[string]string{networks: "quiet"}, nil, []string{"app"}, ""},
		"init":                    {map[string]string{networks: "quiet", asks: "init"}, []string{"multus-vpc-init"}, []string{"app"}, ""},
		"sidecar":                 {map[string]string{networks: "quiet", asks: "sidecar"}, nil, []string{"multus-vpc-sync", "app"}, ""},
		"native":                  {map[string]string{networks: "quiet", asks: "native"}, []string{"multus-vpc-sync"}, []string{"app"}, ""},
		"by the samples' words":   {map[string]string{networks: "quiet", samples: "true"}, nil, []string{"multus-vpc-sync", "app"}, ""},
		"by its network":          {map[string]string{networks: "quiet,asks"}, []string{"multus-vpc-sync"}, []string{"app"}, ""},
		"not what its network is": {map[string]string{networks: "asks", asks: "none"}, nil, []string{"app"}, ""},
		"without a network":       {map[string]string{asks: "init"}, nil, []string{"app"}, "nothing was added"},
		"an unknown network":      {map[string]string{networks: "none", asks: "init"}, []string{"multus-vpc-init"}, []string{"app"}, "no NetworkAttachmentDefinition default/none"},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.create(t.Context(), "default", "?fieldValidation=Strict", bare(tt.annotations))
			if got.err != nil {
				t.Fatal(got.err)
			}
			if diff := cmp.Diff([][]string{tt.init, tt.list}, [][]string{containers(got.pod, "initContainers"), containers(got.pod, "containers")}); diff != "" {
				t.Error(diff)
			}
			if warns := strings.Join(got.warnings, "\n"); (warns != "") != (tt.warns != "") || !strings.Contains(warns, tt.warns) {
				t.Errorf("warns %q, want %q", warns, tt.warns)
			}
		})
	}
}

// refusals have a reason; and what we do not refuse, Pod Security does not either.
func refusals(t *testing.T, c *cluster) {
	harden := func(spec object) {
		spec["securityContext"] = object{"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": object{"type": "RuntimeDefault"}}
		spec["containers"].([]object)[0]["securityContext"] = object{"allowPrivilegeEscalation": false, "capabilities": object{"drop": []string{"ALL"}}}
	}
	c.namespace("baseline", "baseline")
	c.namespace("privileged", "privileged")
	for name, tt := range map[string]struct {
		namespace string
		pod       object
		says      string
	}{
		"restricted, by the agent":   {"restricted", bare(map[string]string{networks: "quiet", asks: "native"}, harden), `Pod Security level "restricted", which forbids the hostPath volume`},
		"baseline, by the agent":     {"baseline", bare(map[string]string{networks: "quiet", asks: "sidecar"}, harden), "multus-vpc.io/via: ec2"},
		"privileged, by the agent":   {"privileged", bare(map[string]string{networks: "quiet", asks: "sidecar"}, harden), ""},
		"restricted, native, by EC2": {"restricted", bare(map[string]string{networks: "quiet", asks: "native", via: "ec2"}, harden), ""},
		"restricted, init, by EC2":   {"restricted", bare(map[string]string{networks: "quiet", asks: "init", via: "ec2"}, harden), ""},
		"restricted, a sidecar":      {"restricted", bare(map[string]string{networks: "quiet", asks: "sidecar", via: "ec2"}, harden), ""},
		"the host's network":         {"default", bare(map[string]string{networks: "quiet", asks: "init"}, func(s object) { s["hostNetwork"] = true }), "remove hostNetwork"},
		"a mode that is none":        {"default", bare(map[string]string{networks: "quiet", asks: "yes"}), `"yes" is not one of none, init, sidecar or native`},
	} {
		got := c.create(t.Context(), tt.namespace, "", tt.pod)
		if tt.says == "" && got.err != nil || tt.says != "" && (got.err == nil || !strings.Contains(got.err.Error(), tt.says) || !strings.Contains(got.err.Error(), `admission webhook "inject.multus-vpc.io" denied the request`)) {
			t.Errorf("%s: %v, want %q", name, got.err, tt.says)
		}
	}
}

// classes: a pod keeps its quality of service, and one that has shared out all it has is still valid.
func classes(t *testing.T, c *cluster) {
	all := object{"cpu": "2", "memory": "1Gi"}
	for name, tt := range map[string]struct {
		change func(object)
		want   string
	}{
		"guaranteed": {func(s object) { s["containers"].([]object)[0]["resources"] = object{"limits": all, "requests": all} }, "Guaranteed"},
		"guaranteed as a whole": {func(s object) {
			s["resources"] = object{"limits": all, "requests": all}
			s["containers"].([]object)[0]["resources"] = object{"limits": all, "requests": all}
		}, "Guaranteed"},
		"burstable": {func(s object) { s["containers"].([]object)[0]["resources"] = object{"requests": all} }, "Burstable"},
	} {
		for _, mode := range []string{"init", "sidecar", "native"} {
			got := c.create(t.Context(), "default", "?dryRun=All", bare(map[string]string{networks: "quiet", asks: mode}, tt.change))
			if got.err != nil {
				t.Errorf("%s, %s: %v", name, mode, got.err)
			} else if class := got.pod["status"].(object)["qosClass"]; class != tt.want {
				t.Errorf("%s, %s: the pod is %s", name, mode, class)
			}
		}
	}
}

// programsWords: every flag and variable that a container is given is one of the program that it runs.
func programsWords(t *testing.T, c *cluster) {
	for _, mode := range []string{"init", "sidecar", "native"} {
		got := c.create(t.Context(), "default", "?dryRun=All", bare(map[string]string{networks: "quiet", asks: mode, "multus-vpc.io/floating": map[string]string{"init": ""}[mode]},
			func(s object) { s["terminationGracePeriodSeconds"] = 9 }))
		if got.err != nil {
			t.Fatal(got.err)
		}
		list := map[bool]string{true: "containers", false: "initContainers"}[mode == "sidecar"]
		ours := got.pod["spec"].(object)[list].([]any)[0].(object)
		program := ours["command"].([]any)[0].(string)
		help, err := exec.Command(filepath.Join(c.programs, program), "-h").CombinedOutput()
		if err != nil {
			t.Fatalf("%s -h: %v", program, err)
		}
		for _, e := range ours["env"].([]any) {
			if name := e.(object)["name"].(string); !strings.Contains(string(help), "("+name+")") {
				t.Errorf("%s: %s knows no %s", mode, program, name)
			}
		}
		if mode == "sidecar" {
			hook := ours["lifecycle"].(object)["postStart"].(object)["exec"].(object)["command"].([]any)
			if err := exec.Command(filepath.Join(c.programs, hook[0].(string)), "--metrics-address=127.0.0.1:1", "--wait=1ms", hook[2].(string)).Run(); err == nil || !strings.HasPrefix(hook[1].(string), "--wait=") {
				t.Errorf("the hook %q: %v", hook, err)
			}
		}
	}
}

// examples: of the workloads there, one asks.
func examples(t *testing.T, c *cluster) {
	files, err := filepath.Glob("../../examples/workloads/*.yaml")
	c.must(err)
	asked := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		c.must(err)
		c.must(c.Apply(t.Context(), text))
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var w object
			c.must(yaml.Unmarshal([]byte(document), &w))
			spec, _ := w["spec"].(object)
			template, _ := spec["template"].(object)
			if template == nil {
				continue
			}
			pod := object{"metadata": object{"generateName": "example-", "annotations": template["metadata"].(object)["annotations"]}, "spec": template["spec"]}
			got := c.create(t.Context(), "default", "?dryRun=All", pod)
			if got.err != nil {
				t.Errorf("%s: %v", file, got.err)
				continue
			}
			added := len(containers(got.pod, "initContainers")) + len(containers(got.pod, "containers")) - len(containers(pod, "initContainers")) - len(containers(pod, "containers"))
			asks := pod["metadata"].(object)["annotations"].(object)[asks] != nil
			if (added == 1) != asks || added > 1 {
				t.Errorf("%s: asks %t, and %d containers are added", file, asks, added)
			}
			asked += added
		}
	}
	if asked == 0 {
		t.Error("no example asks for a container")
	}
}

// certificatesOfAnother: a replica serves what lies in a folder, and takes over what is put there.
func certificatesOfAnother(t *testing.T, c *cluster, kubeconfig string) {
	dir := t.TempDir()
	put := func() (certificate []byte) {
		var secret struct{ Data map[string][]byte }
		c.must(c.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/multus-vpc/secrets/multus-vpc-injector", nil, &secret))
		for _, name := range []string{"tls.crt", "tls.key"} {
			next := filepath.Join(dir, name+".next")
			c.must(os.WriteFile(next, secret.Data[name], 0o600))
			c.must(os.Rename(next, filepath.Join(dir, name)))
		}
		return secret.Data["tls.crt"]
	}
	third := c.start(kubeconfig, "--cert-dir="+dir, "--cert-interval=50ms")
	if err := third.ready(); err == nil {
		t.Error("ready without a certificate")
	}
	put()
	eventually(t, "the replica has read the certificate", third.ready)
	conn, err := tls.Dial("tcp", third.address, &tls.Config{InsecureSkipVerify: true}) // what it shows is compared below
	c.must(err)
	defer conn.Close()
	block, _ := pem.Decode(put())
	if shown := conn.ConnectionState().PeerCertificates[0]; !bytes.Equal(shown.Raw, block.Bytes) {
		t.Errorf("it shows the certificate of %s", shown.Subject)
	}
}

// ownPod: what runs the injector is admitted under the strictest Pod Security level.
func ownPod(t *testing.T, c *cluster) {
	var d object
	c.must(c.Do(t.Context(), http.MethodGet, "/apis/apps/v1/namespaces/multus-vpc/deployments/multus-vpc-injector", nil, &d))
	if got := c.create(t.Context(), "restricted", "?dryRun=All", podOf("Deployment", "apps/v1", d)); got.err != nil {
		t.Error(got.err)
	}
}

func clustersOwn(t *testing.T, c *cluster) {
	got := c.create(t.Context(), "kube-system", "", bare(map[string]string{networks: "quiet", asks: "native"}))
	if got.err != nil || len(containers(got.pod, "initContainers")) > 0 {
		t.Errorf("a pod in kube-system: %+v", got)
	}
}

func dryRun(t *testing.T, c *cluster) {
	got := c.create(t.Context(), "default", "?dryRun=All", bare(map[string]string{networks: "quiet", asks: "native"}))
	if diff := cmp.Diff([]string{"multus-vpc-sync"}, containers(got.pod, "initContainers")); diff != "" || got.err != nil {
		t.Errorf("%v\n%s", got.err, diff)
	}
}

// appliedAgain: an upgrade applies the objects again, which say nothing of certificates.
func appliedAgain(t *testing.T, c *cluster) {
	c.install()
	got := c.create(t.Context(), "default", "", bare(map[string]string{networks: "quiet", asks: "native"}))
	if got.err != nil {
		t.Error(got.err)
	}
}

// counted by the replica that was called: an API server keeps its connection.
func counted(t *testing.T, all ...*replica) {
	var text string
	for _, r := range all {
		page, err := r.get("/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text += page
	}
	for _, series := range []string{`multusvpc_injector_review_seconds_count{mode="native",result="patched"}`, `multusvpc_injector_certificate_expiry_seconds `} {
		if !strings.Contains(text, series) {
			t.Errorf("there is no %s", series)
		}
	}
}

// noMoreRights: what the injector's account may not do.
func noMoreRights(t *testing.T, c *cluster, token string) {
	as := *c.Cluster
	as.Token = token
	const nads = "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions"
	for _, request := range []struct{ method, path string }{
		{http.MethodGet, "/api/v1/namespaces/multus-vpc/secrets"},
		{http.MethodGet, "/api/v1/namespaces/multus-vpc/secrets/another"},
		{http.MethodPost, "/api/v1/namespaces/multus-vpc/secrets"},
		{http.MethodDelete, "/api/v1/namespaces/multus-vpc/secrets/multus-vpc-injector"},
		{http.MethodGet, "/api/v1/namespaces/default/pods"},
		{http.MethodGet, "/api/v1/namespaces"},
		{http.MethodGet, nads},
		{http.MethodDelete, nads + "/quiet"},
		{http.MethodGet, configuration + "-of-another"},
		{http.MethodPut, configuration},
		{http.MethodDelete, configuration},
	} {
		if err := as.Do(t.Context(), request.method, request.path, object{}, nil); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s %s: %v", request.method, request.path, err)
		}
	}
}
