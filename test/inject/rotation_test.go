// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bundle is what the API server trusts.
func (c *cluster) bundle(ctx context.Context) ([]byte, error) {
	var got struct {
		Webhooks []struct {
			ClientConfig struct {
				CABundle []byte `json:"caBundle"`
			} `json:"clientConfig"`
		} `json:"webhooks"`
	}
	err := c.Do(ctx, http.MethodGet, configuration, nil, &got)
	if err == nil && len(got.Webhooks) != 1 {
		err = fmt.Errorf("%d webhooks", len(got.Webhooks))
	}
	if err != nil {
		return nil, err
	}
	return got.Webhooks[0].ClientConfig.CABundle, nil
}

// TestCertificatesRotateWithoutAFailedCall has two replicas renew certificates that live for seconds while pods are made all the
// time, a replica is replaced, and every replica is called anew with what the webhook configuration says at that moment.
func TestCertificatesRotateWithoutAFailedCall(t *testing.T) {
	t.Parallel()
	c := raise(t)
	c.network("default", "quiet", nil)
	kubeconfig, _ := c.asInjector()
	short := []string{"--cert-interval=1s", "--cert-delay=5s", "--cert-validity=15s", "--authority-validity=30s"}
	one, two := c.start(kubeconfig, short...), c.start(kubeconfig, short...)
	for _, r := range []*replica{one, two} {
		eventually(t, "a replica is ready", r.ready)
	}
	c.service.endpoints(one, two)
	pod := bare(map[string]string{networks: "quiet", asks: "native"})
	eventually(t, "the API server knows", func() error { return c.create(t.Context(), "default", "?dryRun=All", pod).err })

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var loops sync.WaitGroup
	var made atomic.Int64
	for range 2 {
		loops.Go(func() {
			const every = 20 * time.Millisecond
			for tick := time.NewTicker(every); ctx.Err() == nil; <-tick.C {
				if got := c.create(ctx, "default", "?dryRun=All", pod); got.err != nil && ctx.Err() == nil {
					t.Errorf("after %d pods: %v", made.Load(), got.err)
					return
				}
				made.Add(1)
			}
		})
	}
	seen := watched{serials: map[string]bool{}, bundles: map[string]bool{}}
	replaced := false
	live := []*replica{one, two}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); seen.retired < 1 && time.Since(began) < 2*time.Minute && !t.Failed(); <-tick.C {
		for _, r := range live {
			if err := seen.look(ctx, c, r.address); err != nil {
				t.Errorf("after %v, with %d certificates and %d bundles seen: %v", time.Since(began), len(seen.serials), len(seen.bundles), err)
			}
		}
		if !replaced && len(seen.bundles) == 2 { // in the middle of a rotation
			replaced = true
			three := c.start(kubeconfig, short...)
			eventually(t, "the new replica is ready", three.ready)
			live = []*replica{two, three}
			one.leave()
			eventually(t, "the old replica is not ready", func() error {
				if one.ready() == nil {
					return fmt.Errorf("still ready")
				}
				return nil
			})
			c.service.endpoints(two, three)
		}
	}
	cancel()
	loops.Wait()
	one.stop()
	if seen.retired < 1 || len(seen.serials) < 3 || !replaced || made.Load() < 100 {
		t.Errorf("only %d authorities went, %d certificates, %d pods, replaced %t: nothing was proved", seen.retired, len(seen.serials), made.Load(), replaced)
	}
	t.Logf("%d pods, %d certificates, %d bundles, %d authorities retired", made.Load(), len(seen.serials), len(seen.bundles), seen.retired)
}

// watched is what was seen of a rotation.
type watched struct {
	serials, bundles map[string]bool
	trusted          map[string]bool
	retired          int
}

// look makes a new connection to a replica, as an API server that has just read the configuration.
func (w *watched) look(ctx context.Context, c *cluster, address string) error {
	bundle, err := c.bundle(ctx)
	if err != nil {
		return err
	}
	w.bundles[string(bundle)] = true
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	now := map[string]bool{}
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		now[string(block.Bytes)] = true
	}
	for authority := range w.trusted {
		if !now[authority] {
			w.retired++
		}
	}
	w.trusted = now
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("call %s: %w", address, err)
	}
	w.serials[conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()] = true
	return conn.Close()
}
