// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

type object = map[string]any

// annotations of Multus.
// https://github.com/k8snetworkplumbingwg/multi-net-spec
const (
	networksAnnotation = "k8s.v1.cni.cncf.io/networks"
	statusAnnotation   = "k8s.v1.cni.cncf.io/network-status"
)

// podsPath is where the API server has the pods.
const podsPath = "/api/v1/namespaces/default/pods"

// networks are the definitions of the AWS samples: whereabouts under upstream ipvlan, and under vpcipvlan, which registers
// what it gives. %s is whereabouts' own configuration.
const networks = `
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: ipvlan-multus}
spec:
  config: |
    {"cniVersion": "0.3.0", "name": "ipvlan-multus", "type": "ipvlan", "master": "eth1", "mode": "l2",
     "ipam": {"type": "whereabouts", "range": "10.10.1.80-10.10.1.82/24", "gateway": "10.10.1.1", "configuration_path": "%[1]s"}}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: vpcipvlan-multus}
spec:
  config: |
    {"cniVersion": "0.3.1", "name": "vpcipvlan-multus", "type": "vpcipvlan", "eni": {"deviceIndex": 1}, "register": true,
     "ipam": {"type": "whereabouts", "range": "10.10.1.80-10.10.1.82/24", "gateway": "10.10.1.1", "configuration_path": "%[1]s"}}
`

// cluster is the control plane, with Multus and whereabouts installed on the workers.
type cluster struct {
	*ground
	api *kubernetes.Cluster
}

// install starts the control plane.
func (g *ground) install(t *testing.T) *cluster {
	t.Helper()
	began := time.Now()
	c := &cluster{ground: g}
	var err error
	if c.api, err = kubernetes.Start(t.Context(), kubernetes.Config{Programs: g.stack}); err != nil {
		t.Fatal(err)
	}
	cleanUp(t, c.api.Close)
	definitions, err := stack.Definitions(g.stack)
	if err != nil {
		t.Fatal(err)
	}
	flat := filepath.Join(g.dir, "whereabouts.conf")
	definitions = append(definitions, []byte("\n---\n"+fmt.Sprintf(networks, flat))...)
	if err = c.api.Apply(t.Context(), definitions); err != nil {
		t.Fatal(err)
	}
	writeJSON(t, flat, object{"kubernetes": object{"kubeconfig": c.api.Kubeconfig}})
	for _, n := range g.nodes {
		c.admit(t, n)
	}
	t.Logf("the control plane runs after %v", time.Since(began).Round(time.Second))
	return c
}

// admit makes a worker a node of the cluster: it reaches the API server, and has a network plugin for the pods' first interface,
// a veth to the worker as that of the Amazon VPC CNI.
func (c *cluster) admit(t *testing.T, n *node) {
	t.Helper()
	f, err := c.api.Forward(t.Context(), n.netns)
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, f.Close)
	if err = c.api.Do(t.Context(), http.MethodPost, "/api/v1/nodes", object{
		"metadata": object{"name": n.name}, "spec": object{"providerID": "aws:///us-west-2a/" + c.lab.Instances[n.name]},
	}, nil); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"thin", "thick"} {
		if err = os.MkdirAll(n.netd(kind), 0o700); err != nil {
			t.Fatal(err)
		}
		writeJSON(t, n.clusterNetwork(kind), object{
			"cniVersion": "0.3.1", "name": "cluster", "type": "ptp",
			"ipam": object{
				"type": "host-local", "dataDir": filepath.Join(n.dir, "host-local"),
				"subnet": map[string]string{"worker-1": "10.244.1.0/24", "worker-2": "10.244.2.0/24"}[n.name],
				"routes": []any{object{"dst": "0.0.0.0/0"}},
			},
		})
	}
}

// netd is where Multus of a kind is configured on the worker: /etc/cni/net.d.
func (n *node) netd(kind string) string { return filepath.Join(n.dir, kind, "net.d") }

// clusterNetwork is where the pods' first interface is configured. It is no list: of a list, Multus hands each plugin but the
// generic keys at DEL, and host-local wants its range.
// https://github.com/k8snetworkplumbingwg/multus-cni/blob/v4.2.4/pkg/multus/multus.go#L1095
func (n *node) clusterNetwork(kind string) string {
	return filepath.Join(n.netd(kind), "10-cluster.conf")
}

// multusConf is where the runtime finds Multus.
func (n *node) multusConf(kind string) string { return filepath.Join(n.netd(kind), "00-multus.conf") }

// thin installs Multus as a plugin that does all by itself.
// https://github.com/k8snetworkplumbingwg/multus-cni/blob/v4.2.4/docs/configuration.md
func (c *cluster) thin(t *testing.T, n *node) {
	t.Helper()
	writeJSON(t, n.multusConf("thin"), object{
		"cniVersion": "0.3.1", "name": multusNetwork, "type": "multus", "kubeconfig": c.api.Kubeconfig,
		"clusterNetwork": n.clusterNetwork("thin"), "binDir": c.peers, "cniDir": filepath.Join(n.dir, "thin", "cni"), "logLevel": "error",
	})
}

// thick installs Multus as a daemon, which has the API server's objects at hand and runs the plugins, and a shim that asks it. The
// daemon writes the runtime's configuration itself, and finds the API server as a pod does.
// https://github.com/k8snetworkplumbingwg/multus-cni/blob/v4.2.4/docs/thick-plugin.md
func (c *cluster) thick(t *testing.T, n *node) {
	t.Helper()
	account := filepath.Join(n.dir, "serviceaccount")
	if err := os.MkdirAll(account, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"token": c.api.Token, "ca.crt": string(c.api.CA), "namespace": "kube-system"} {
		if err := os.WriteFile(filepath.Join(account, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const inPods = "/var/run/secrets/kubernetes.io/serviceaccount"
	if err := n.mount(account, inPods); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(c.api.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	run, config := filepath.Join(n.dir, "thick", "run"), filepath.Join(n.dir, "thick", "daemon-config.json")
	writeJSON(t, config, object{
		"cniVersion": "0.3.1", "logLevel": "error", "logToStderr": true, "socketDir": run, "daemonSocketDir": run,
		"cniConfigDir": n.netd("thick"), "multusAutoconfigDir": n.netd("thick"), "multusConfigFile": "auto",
		"binDir": c.peers, "cniDir": filepath.Join(n.dir, "thick", "cni"),
	})
	n.daemon(t, filepath.Join(c.stack, "multus-daemon"), []string{
		"MULTUS_NODE_NAME=" + n.name, "KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port,
	}, "-config", config)
	await(t, "the daemon of Multus on "+n.name+" configures the runtime", func() error {
		_, statErr := os.Stat(n.multusConf("thick"))
		return statErr
	})
}

// mount has the worker's processes see a folder at a path.
func (n *node) mount(dir, at string) error {
	return n.place.Do(func() error {
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		return unix.Mount(dir, at, "", unix.MS_BIND, "")
	})
}

// multusNetwork is how Multus' daemon calls what it configures.
const multusNetwork = "multus-cni-network"

// create makes a pod that asks for networks, as [cluster.schedule] does.
func (c *cluster) create(t *testing.T, n *node, name, networks string) *aPod {
	t.Helper()
	return c.schedule(t, n, name, object{"annotations": object{networksAnnotation: networks}})
}

// schedule makes a pod in the API, scheduled to the worker, and its sandbox there.
func (c *cluster) schedule(t *testing.T, n *node, name string, metadata object) *aPod {
	t.Helper()
	metadata["name"] = name
	var made struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	err := c.api.Do(t.Context(), http.MethodPost, podsPath, object{
		"metadata": metadata,
		"spec":     object{"nodeName": n.name, "containers": []any{object{"name": "app", "image": "app"}}},
	}, &made)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.delete(context.WithoutCancel(t.Context()), name); err != nil {
			t.Error(err)
		}
	})
	p := n.newPod(t, name)
	p.uid = made.Metadata.UID
	return p
}

// delete removes a pod from the API. Removing twice succeeds.
func (c *cluster) delete(ctx context.Context, name string) error {
	err := c.api.Do(ctx, http.MethodDelete, podsPath+"/"+name+"?gracePeriodSeconds=0", nil, nil)
	if refusal, ok := errors.AsType[*kubernetes.StatusError](err); ok && refusal.Code == http.StatusNotFound {
		return nil
	}
	return err
}

// multus has the worker's runtime run Multus for a pod.
func (p *aPod) multus(ctx context.Context, kind, verb string) error {
	n := p.node
	_, err := n.run(ctx, filepath.Join(n.peers, "cnitool"), []string{
		"NETCONFPATH=" + n.netd(kind), "CNI_IFNAME=eth0",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + p.Name + ";K8S_POD_UID=" + p.uid + ";K8S_POD_INFRA_CONTAINER_ID=" + p.Name,
	}, verb, multusNetwork, n.place.Inside(p.Name))
	return err
}

// add attaches a pod, and returns its address on net1 as the API server has it from Multus.
func (c *cluster) add(t *testing.T, kind string, p *aPod, network string) netip.Addr {
	t.Helper()
	began := time.Now()
	if err := c.addAgain(t, kind, p); err != nil {
		t.Fatal(err)
	}
	status := c.status(t, p)
	if len(status) != 2 || !status[0].Default || status[1].Name != "default/"+network || status[1].Interface != "net1" || len(status[1].IPs) != 1 {
		t.Fatalf("network-status of %s is %+v", p.Name, status)
	}
	t.Logf("%s on %s: %s, ADD took %v", p.Name, p.node.name, status[1].IPs[0], time.Since(began).Round(time.Millisecond))
	return status[1].IPs[0]
}

// addAgain runs ADD, and once more after a DEL, as a kubelet does, when the API server was too slow for Multus or whereabouts: it is
// emulated like all else. Any other error is one.
func (c *cluster) addAgain(t *testing.T, kind string, p *aPod) error {
	t.Helper()
	const tries = 3
	for try := 1; ; try++ {
		err := p.multus(t.Context(), kind, "add")
		if err == nil {
			return nil
		}
		slow := strings.Contains(err.Error(), c.api.URL) || strings.Contains(err.Error(), "waiting to become leader")
		if !slow || try == tries {
			return err
		}
		t.Logf("the API server is slow, so ADD is tried again: %v", err)
		if err := p.multus(t.Context(), kind, "del"); err != nil {
			return err
		}
	}
}

// del detaches a pod and removes it from the API, as the kubelet does.
func (c *cluster) del(t *testing.T, kind string, p *aPod) {
	t.Helper()
	err := p.multus(t.Context(), kind, "del")
	if err = errors.Join(err, p.node.place.Remove(p.Name), c.delete(t.Context(), p.Name)); err != nil {
		t.Fatal(err)
	}
}

func writeJSON(t *testing.T, file string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
