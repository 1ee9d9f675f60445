// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package kubernetes runs a real Kubernetes API server, with etcd behind it, for tests and benchmarks: objects, validation,
// RBAC, service account tokens, server-side apply and watches are not imitated. There is no kubelet, no scheduler and no
// controller manager, so nothing acts on the objects: a pod is a record. A [Cluster] listens on loopback alone, keeps
// all that it writes in one folder, and ends with the process that started it, however that ends. Etcd does not wait for
// the disk. What the objects mean to CNI plugins does not belong here.
package kubernetes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	// startTimeout is far above the 3 s that both need on an idle machine, for one that emulates or is busy.
	startTimeout = 3 * time.Minute
	// pollInterval is how often a condition of the API server is looked at.
	pollInterval = 50 * time.Millisecond
)

// Config says what to run. Programs is needed.
type Config struct {
	// Programs is the folder of etcd and kube-apiserver.
	Programs string
	// Dir is where everything is written; default: a new folder, which Close removes.
	Dir string
	// Authenticate, when it is set, says who has a bearer token that the API server does not know by itself, or an error. It is asked
	// as a cluster's webhook is, and the API server remembers its answers for a while.
	Authenticate func(token string) (User, error)
}

// Cluster is an API server that runs. Its fields do not change.
type Cluster struct {
	URL        string
	CA         []byte // PEM; it signed the server's certificate for the loopback addresses and kubernetes.default.svc
	Token      string // of a member of system:masters, whom RBAC never refuses
	Kubeconfig string // path of a file that names the three

	address   netip.AddrPort
	client    *http.Client
	dir       string
	temporary bool
	ports     []reserved
	webhook   *http.Server // asks Config.Authenticate; nil without
	processes []*process   // in the order in which they were started
}

// Start starts etcd and the API server and waits until it serves and has its system namespaces. The caller closes the
// cluster; ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not within %v", startTimeout))
	defer cancel()
	c := &Cluster{dir: cfg.Dir}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start a Kubernetes API server: %w", err), c.Close())
		}
	}()
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "multus-vpc-kubernetes-"); err != nil {
			return nil, err
		}
		c.temporary = true
	}
	etcd, err := c.startEtcd(cfg.Programs)
	if err != nil {
		return nil, err
	}
	if err = c.startServer(ctx, cfg, etcd); err != nil {
		return nil, err
	}
	return c, c.await(ctx, c.ready)
}

// startEtcd returns the URL for clients.
func (c *Cluster) startEtcd(programs string) (string, error) {
	clients, err := c.reserve()
	if err != nil {
		return "", err
	}
	peers, err := c.reserve()
	if err != nil {
		return "", err
	}
	clientURL, peerURL := "http://"+clients.String(), "http://"+peers.String()
	return clientURL, c.run(filepath.Join(programs, "etcd"),
		"--name=etcd", "--data-dir="+filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn", "--socket-reuse-port",
		"--listen-client-urls="+clientURL, "--advertise-client-urls="+clientURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=etcd="+peerURL)
}

// startServer also makes the credentials.
func (c *Cluster) startServer(ctx context.Context, cfg Config, etcd string) (err error) {
	if c.address, err = c.reserve(); err != nil {
		return err
	}
	files, err := c.issue()
	if err != nil {
		return err
	}
	args := []string{
		"--etcd-servers=" + etcd,
		"--bind-address=" + c.address.Addr().String(), "--secure-port=" + strconv.Itoa(int(c.address.Port())), "--permit-port-sharing",
		"--advertise-address=" + c.address.Addr().String(), "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + files.certificate, "--tls-private-key-file=" + files.key, "--cert-dir=" + c.dir,
		"--token-auth-file=" + files.tokens, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + files.serviceAccountKey, "--service-account-signing-key-file=" + files.serviceAccountKey,
		"--service-cluster-ip-range=" + serviceRange,
		// Nobody makes the service account "default" in new namespaces: that is a controller's work.
		"--disable-admission-plugins=ServiceAccount", "--allow-privileged",
	}
	if cfg.Authenticate != nil {
		file, err := c.serveReviews(ctx, cfg.Authenticate)
		if err != nil {
			return err
		}
		args = append(args, "--authentication-token-webhook-config-file="+file, "--authentication-token-webhook-version=v1")
	}
	return c.run(filepath.Join(cfg.Programs, "kube-apiserver"), args...)
}

// ready asks for what a client may rely on: post-start hooks ran (readyz), and the namespace that everybody uses exists.
func (c *Cluster) ready(ctx context.Context) error {
	return cmp.Or(c.Do(ctx, http.MethodGet, "/readyz", nil, nil), c.Do(ctx, http.MethodGet, "/api/v1/namespaces/default", nil, nil))
}

// await asks until there is no error, and gives up when ctx ends or a process does.
func (c *Cluster) await(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, p := range c.processes {
		defer context.AfterFunc(p.life, func() { cancel(p.obituary()) })()
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; the last answer: %w", context.Cause(ctx), err)
		}
	}
}

// Close kills the API server and etcd, in that order, waits until they are gone, and removes what they wrote. Closing
// twice succeeds.
func (c *Cluster) Close() error {
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].kill()
	}
	var errs []error
	if c.webhook != nil {
		errs = append(errs, c.webhook.Close())
	}
	for _, r := range c.ports {
		errs = append(errs, r.release())
	}
	c.ports = nil
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
	if c.temporary {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}
