// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package kube asks the Kubernetes API. A [Client] asks the few questions that a node has: which pod of a StatefulSet a pod is,
// and what Multus gave the pods of the node. The agent uses it for sticky addresses and for claims. A question is one GET or LIST
// of metadata; nothing is cached or watched, so that a worker costs the API server nothing until a pod asks. What it
// changes is a node's taint, and it makes events. A [Reader] lists what a cluster has, for an operator's command. Both decide nothing about addresses.
//
// Of client-go it uses the metadata and dynamic clients: the typed clients link every API group's types, four times as much.
package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	// requestTimeout bounds one question. An API server answers a GET of one object within a second (its service level
	// objective); whoever asks may leave earlier by its context.
	// https://github.com/kubernetes/community/blob/master/sig-scalability/slos/api_call_latency.md
	requestTimeout = 10 * time.Second

	// DefaultServiceAccountDir is where the kubelet mounts a pod's service account.
	// https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api
	DefaultServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// ErrNoAPI says that nothing tells where a Kubernetes API is, or as whom to speak to it.
var ErrNoAPI = errors.New("no access to a Kubernetes API is configured")

// Config says how to reach the API: by Kubeconfig, or else as the service account of the pod that we run in.
type Config struct {
	// Kubeconfig is the path of a file, or a list of them as in KUBECONFIG; empty means the service account.
	Kubeconfig string
	// Context of the Kubeconfig; empty means its current one.
	Context string
	// ServiceHost and ServicePort are KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT of a pod; empty outside a cluster.
	ServiceHost, ServicePort string
	// ServiceAccountDir has token and ca.crt; empty means [DefaultServiceAccountDir].
	ServiceAccountDir string
	// UserAgent is who we are in the API server's audit log.
	UserAgent string
}

// Client asks the API. Its methods may be called concurrently.
type Client struct {
	metadata metadata.Interface
	objects  dynamic.Interface
}

// New makes a client without asking anything yet, so that the API may be away. The error matches [ErrNoAPI] when cfg is
// about no cluster: no Kubeconfig, and not in a pod with a service account.
func New(cfg Config) (*Client, error) {
	access, err := cfg.Access()
	if err != nil {
		return nil, err
	}
	client, err := metadata.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("make a client for the Kubernetes API at %s: %w", access.Host, err)
	}
	objects, err := dynamic.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("make a client for the Kubernetes API at %s: %w", access.Host, err)
	}
	return &Client{client, objects}, nil
}

// Access is what a client of small questions is made with, as [New] makes one. Its errors are New's.
func (cfg Config) Access() (*rest.Config, error) {
	access, err := cfg.prepare()
	if err != nil {
		return nil, err
	}
	access.Timeout = requestTimeout
	return access, nil
}

// prepare is access with what is the same for all who ask.
func (cfg Config) prepare() (*rest.Config, error) {
	access, err := cfg.access()
	if err != nil {
		return nil, err
	}
	access.UserAgent = cfg.UserAgent
	access.QPS = -1 // the API server's own fairness shares it out; client-go's default is 5 a second
	access.WarningHandler = rest.NoWarnings{}
	return access, nil
}

// access is where the API server is and as whom to speak to it.
func (cfg Config) access() (*rest.Config, error) {
	switch {
	case cfg.Kubeconfig != "":
		access, err := readKubeconfig(cfg.Kubeconfig, cfg.Context)
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", cfg.Kubeconfig, err)
		}
		return access, nil
	case cfg.ServiceHost != "" && cfg.ServicePort != "":
		return cfg.serviceAccount()
	default:
		return nil, ErrNoAPI
	}
}

// readKubeconfig uses a context of that file, the current one without a name. Unlike the loaders for command lines it never falls back to
// the service account: who names a file means that file.
func readKubeconfig(path, name string) (*rest.Config, error) {
	file, err := loadKubeconfig(filepath.SplitList(path))
	if err != nil {
		return nil, err
	}
	if name != "" {
		file.CurrentContext = name
	}
	return clientcmd.NewDefaultClientConfig(*file, nil).ClientConfig()
}

// loadKubeconfig reads one file, which must be there, or merges several as kubectl does, of which any may be absent.
// https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
func loadKubeconfig(files []string) (*clientcmdapi.Config, error) {
	if len(files) > 1 {
		return (&clientcmd.ClientConfigLoadingRules{Precedence: files}).Load()
	}
	file, err := clientcmd.LoadFromFile(files[0])
	if err != nil {
		return nil, err
	}
	return file, clientcmd.ResolveLocalPaths(file)
}

// serviceAccount is the access that every pod has, unless its author said automountServiceAccountToken: false. It is
// what rest.InClusterConfig does, with places that a test can choose.
func (cfg Config) serviceAccount() (*rest.Config, error) {
	dir := cfg.ServiceAccountDir
	if dir == "" {
		dir = DefaultServiceAccountDir
	}
	token, ca := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	if _, err := os.Stat(token); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: this pod has no service account token in %s", ErrNoAPI, dir)
	}
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort(cfg.ServiceHost, cfg.ServicePort),
		BearerTokenFile: token, // read anew every minute: the kubelet rotates it
		TLSClientConfig: rest.TLSClientConfig{CAFile: ca},
	}, nil
}
