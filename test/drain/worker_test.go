// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

// account is a lab with our stacks, whose function drains.
type account struct {
	*cluster
	lab      *lab.Running
	function string
}

// deploy makes the VPC and a group of no workers.
func (c *cluster) deploy() *account {
	c.t.Helper()
	s, err := scenario.Parse([]byte("vpc: {cidr: 10.99.0.0/16}\nsubnets: [{name: other, cidr: 10.99.1.0/24, az: us-west-2a}]"))
	c.must(err)
	l, err := lab.Serve(c.t.Context(), s, lab.Config{Log: c.t.Output(), Buckets: map[string]string{"bucket": pack(c.t)}})
	c.must(err)
	c.t.Cleanup(func() { c.must(l.Close()) })
	a := &account{cluster: c, lab: l}
	out := a.stack("network", "vpc.yaml", nil).Outputs
	workers := a.stack("workers", "multus-node-group.yaml", map[string]string{
		"ClusterName": clusterName, "NodeGroupName": "multus", "ClusterControlPlaneSecurityGroup": "sg-0123456789abcdef0",
		"EksApiServerEndpoint": c.URL, "EksCertificateAuthority": base64.StdEncoding.EncodeToString(c.CA), "NodeAutoScalingGroupDesiredCapacity": "0",
		"VpcId": out["VpcId"], "Subnets": out["Subnets"], "MultusSubnets": out["MultusSubnets"], "MultusSecurityGroups": out["MultusSecurityGroups"],
		"MultusInterfaces": "2", "LambdaS3Bucket": "bucket", "LambdaArchitecture": map[string]string{"amd64": "x86_64", "arm64": "arm64"}[runtime.GOARCH],
		"DrainNodes": "true", "DrainTimeout": "2m",
	})
	made, ok := workers.Find("LambdaAttachENI")
	role, is := workers.Find("LambdaRole")
	if !ok || !is {
		c.t.Fatalf("the stack has %v", workers.Resources)
	}
	a.function = made.Ref
	// The lab's functions sign with their names. EKS would find the access entry by the role that has signed.
	c.iam.add(a.function, principal{secret: "lab", groups: func() ([]string, error) { return a.entry(role.Attributes["Arn"]) }})
	return a
}

// stack deploys a template.
func (a *account) stack(name, file string, parameters map[string]string) cloudformation.Stack {
	a.t.Helper()
	text, err := os.ReadFile("../../cfn/" + file)
	a.must(err)
	template, err := cloudformation.Parse(text)
	a.must(err)
	made, err := a.lab.Stacks.Create(a.t.Context(), name, template, parameters)
	a.must(err)
	return made
}

// entry finds the groups of a role's access entry, as long as there is one.
func (a *account) entry(role string) ([]string, error) {
	for _, left := range a.lab.Inert.Left() {
		kind, ref, _ := strings.Cut(left, " ")
		entry, ok := a.lab.Inert.Find(kind, ref)
		if !ok || kind != "AWS::EKS::AccessEntry" || entry.Properties.Raw("PrincipalArn") != role {
			continue
		}
		var groups []string
		for _, g := range entry.Properties.Raw("KubernetesGroups").([]any) {
			groups = append(groups, g.(string))
		}
		return groups, nil
	}
	return nil, fmt.Errorf("%s has no access entry", role)
}

func (a *account) members() []autoscaling.Instance {
	g, _ := a.lab.Scaling.Group(clusterName + "-multus")
	return g.Instances
}

// interfaces counts the ENIs that the function made.
func (a *account) interfaces() (n int) {
	for _, e := range a.lab.Cloud.View(time.Now().Add(time.Minute)).AllENIs() {
		if e.Tags["multus-vpc.io/owner"] != "" {
			n++
		}
	}
	return n
}

func (a *account) log() string { return a.lab.Functions.Logs(a.function) }

// deleteStack deploys the templates with the real function, and deletes the stack while a worker has a pod: the pod leaves before the
// interfaces do, and the function's access entry goes after the worker.
func deleteStack(t *testing.T, all *cluster) {
	c, _, _ := all.in(t, "shrink")
	a := c.deploy()
	c.must(a.lab.Scaling.SetDesiredCapacity(time.Now(), clusterName+"-multus", 1))
	await(t, "a worker in service", func() bool {
		m := a.members()
		return len(m) == 1 && m[0].State == autoscaling.InService
	}, a.log)
	c.node("shrinks", eni.InstanceID(a.members()[0].ID))
	c.must(c.run(t.Context(), "upf-0", "shrinks", 30, nil))

	deleted := make(chan error, 1)
	go func() { deleted <- a.lab.Stacks.Delete(t.Context(), "workers") }()
	await(t, "the pod to be evicted", func() bool {
		pods, err := c.list(t.Context())
		c.must(err)
		return len(pods) == 1 && pods[0].leaving() && strings.Contains(a.log(), "pod evicted")
	}, a.log)
	members := a.members()
	if !c.cordoned("shrinks") || a.interfaces() != 2 || len(members) != 1 || members[0].State != autoscaling.TerminatingWait {
		t.Errorf("while the pod ends: cordoned %t, %d interfaces, the group has %+v", c.cordoned("shrinks"), a.interfaces(), members)
	}
	log := a.log()
	if !strings.Contains(log, `"pod":"shrink/upf-0"`) {
		t.Errorf("the log does not say which pod:\n%s", log)
	}
	if strings.Contains(log, "k8s-aws-v1.") || strings.Contains(log, "X-Amz-Signature") {
		t.Errorf("the log has a token:\n%s", log)
	}
	(&actors{cluster: c}).start() // the kubelet ends the pod
	if err := <-deleted; err != nil || a.interfaces() != 0 || len(c.on("shrinks")) != 0 {
		t.Errorf("the stack: %v; %d interfaces and %v are left", err, a.interfaces(), c.on("shrinks"))
	}
	c.must(a.lab.Stacks.Delete(t.Context(), "network"))
	if left := a.lab.Inert.Left(); slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, "AWS::EKS::") }) {
		t.Errorf("left: %v", left)
	}
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool, state func() string) {
	t.Helper()
	const patience, pause = time.Minute, 20 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for began := time.Now(); !holds(); <-tick.C {
		if time.Since(began) > patience {
			t.Fatalf("want %s\n%s", what, state())
		}
	}
}

// pack builds the function's package, and returns its folder.
func pack(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "bootstrap")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags=lambda.norpc", "-o", program, "github.com/multus-vpc/multus-vpc/lambda")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	header := &zip.FileHeader{Name: "bootstrap", Method: zip.Store}
	header.SetMode(0o755)
	f, err := w.CreateHeader(header)
	if err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "lambda-arm64.zip"), packed.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
