// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubernetes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// serviceRange is where the API server takes the addresses of Services from; its own is the first.
const serviceRange = "10.96.0.0/16"

// validity of the certificates: longer than any test, and a day into the past for clocks that tests set back.
const validity = 24 * time.Hour

// files are what the API server reads.
type files struct {
	certificate, key, tokens, serviceAccountKey string
}

// issue makes a certificate authority, the server's certificate, a token and a kubeconfig, and the client that uses them.
func (c *Cluster) issue() (files, error) {
	authority, err := newKey()
	if err != nil {
		return files{}, err
	}
	server, err := newKey()
	if err != nil {
		return files{}, err
	}
	root := template(1, "multus-vpc test authority")
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, authority.Public(), authority)
	if err != nil {
		return files{}, fmt.Errorf("issue the authority's certificate: %w", err)
	}
	leaf := template(2, "kube-apiserver")
	leaf.IPAddresses = []net.IP{c.address.Addr().AsSlice(), net.IPv6loopback, net.IPv4(10, 96, 0, 1)}
	leaf.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, server.Public(), authority)
	if err != nil {
		return files{}, fmt.Errorf("issue the server's certificate: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(server)
	if err != nil {
		return files{}, err
	}
	c.URL, c.Token = "https://"+c.address.String(), rand.Text()
	c.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CA)
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}}
	return c.writeFiles(leafDER, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// writeFiles writes what the server reads, and the kubeconfig.
func (c *Cluster) writeFiles(certificate, key []byte) (files, error) {
	at := func(name string) string { return filepath.Join(c.dir, name) }
	f := files{certificate: at("server.crt"), key: at("server.key"), tokens: at("tokens.csv"), serviceAccountKey: at("service-account.key")}
	c.Kubeconfig = at("kubeconfig")
	config, err := c.kubeconfig()
	if err != nil {
		return files{}, err
	}
	for path, content := range map[string][]byte{
		f.certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		f.key:         key,
		// One key pair is enough: service accounts' tokens are nobody else's business.
		f.serviceAccountKey: key,
		f.tokens:            []byte(c.Token + ",admin,admin,system:masters\n"),
		c.Kubeconfig:        config,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return files{}, err
		}
	}
	return f, nil
}

// kubeconfig names the server and the token. JSON is YAML.
// https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
func (c *Cluster) kubeconfig() ([]byte, error) {
	type object = map[string]any
	named := func(what string, o object) []object { return []object{{"name": "lab", what: o}} }
	return json.MarshalIndent(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "lab",
		"clusters": named("cluster", object{"server": c.URL, "certificate-authority-data": base64.StdEncoding.EncodeToString(c.CA)}),
		"users":    named("user", object{"token": c.Token}),
		"contexts": named("context", object{"cluster": "lab", "user": "lab", "namespace": "kube-system"}),
	}, "", "  ")
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func template(serial int64, name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-validity), NotAfter: now.Add(validity),
	}
}
