// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificate is one for 127.0.0.1, by itself, with its key; both PEM.
func certificate(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// mount writes a folder as the kubelet writes a Secret's: a link that is renamed over the old one.
func mount(t *testing.T, dir string, cert, key []byte) {
	t.Helper()
	data, err := os.MkdirTemp(dir, "..data-")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"tls.crt": cert, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(data, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	next := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(data), next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	f := OpenFiles(dir, time.Millisecond, slog.New(slog.DiscardHandler))
	if f.Ready() == nil || !f.Expires().IsZero() || f.Failures() != 1 {
		t.Errorf("ready without a certificate, or no failure: %d", f.Failures())
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); f.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	first, firstKey := certificate(t, 1)
	mount(t, dir, first, firstKey)
	shows(t, f, 1)
	second, secondKey := certificate(t, 2)
	mount(t, dir, second, firstKey) // do not belong together
	failures := f.Failures()
	for f.Failures() < failures+2 {
		shows(t, f, 1)
	}
	mount(t, dir, second, secondKey)
	shows(t, f, 2)
	if f.Ready() != nil || time.Until(f.Expires()) < 50*time.Minute {
		t.Errorf("%v, expires %v", f.Ready(), f.Expires())
	}
}

// shows waits until callers see the certificate of that number.
func shows(t *testing.T, f *Files, serial int64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		if pair, err := f.Certificate(nil); err == nil && pair.Leaf.SerialNumber.Int64() == serial {
			return
		}
		<-tick.C
	}
	t.Fatalf("certificate %d is not shown", serial)
}

func TestServeEndsAfterTheCallsThatAreUnderWay(t *testing.T) {
	cert, key := certificate(t, 1)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	called, answer := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(called)
		<-answer
		_, _ = io.WriteString(w, "done") // the client checks
	})
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, ln, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }, handler, 20*time.Millisecond, slog.New(slog.DiscardHandler))
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	got := make(chan string, 1)
	go func() {
		resp, err := client.Get("https://" + ln.Addr().String())
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- resp.Proto + " " + string(text)
	}()
	<-called
	leave()
	for { // the listener closes when the time to linger is over
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-served:
		t.Fatalf("ended during a call: %v", err)
	default:
	}
	close(answer)
	if text := <-got; text != "HTTP/2.0 done" {
		t.Errorf("the call that was under way got %q", text)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
