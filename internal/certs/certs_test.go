// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const host = "multus-vpc-injector.multus-vpc.svc"

// quick is a configuration that rotates everything within an hour.
func quick() Config {
	return Config{Hosts: []string{host}, AuthorityValidity: 60 * time.Minute, Validity: 15 * time.Minute, Delay: 3 * time.Minute, Interval: time.Minute}
}

// api is what the replicas see of a Kubernetes API: two objects with versions, and days on which it is away.
type api struct {
	mu       sync.Mutex
	data     map[string][]byte
	saved    int
	bundle   []byte
	version  int
	history  []published
	away     error
	noWrites error // to the bundle
}

type published struct {
	at     time.Time
	bundle []byte
}

func (a *api) Load(context.Context) (map[string][]byte, string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.data), strconv.Itoa(a.saved), a.away
}

func (a *api) Save(_ context.Context, data map[string][]byte, version string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away != nil {
		return a.away
	}
	if version != strconv.Itoa(a.saved) {
		return ErrConflict
	}
	a.data, a.saved = maps.Clone(data), a.saved+1
	return nil
}

func (a *api) Bundle(context.Context) ([]byte, string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.bundle), strconv.Itoa(a.version), a.away
}

func (a *api) Publish(_ context.Context, bundle []byte, version string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := errors.Join(a.away, a.noWrites); err != nil {
		return err
	}
	if version != strconv.Itoa(a.version) {
		return ErrConflict
	}
	a.set(bundle)
	return nil
}

func (a *api) set(bundle []byte) {
	a.bundle, a.version = slices.Clone(bundle), a.version+1
	a.history = append(a.history, published{time.Now(), a.bundle})
}

// known is the bundle that an API server has which is so much behind.
func (a *api) known(lag time.Duration) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	var bundle []byte
	for _, p := range a.history {
		if time.Since(p.at) >= lag {
			bundle = p.bundle
		}
	}
	return bundle
}

// call is what an API server does with a replica's certificate.
func call(t *testing.T, m *Manager, bundle []byte) (serial string, err error) {
	t.Helper()
	pair, err := m.Certificate(nil)
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: time.Now()})
	return pair.Leaf.SerialNumber.String(), err
}

// replicas run until the returned function is called.
func replicas(t *testing.T, cfg Config, a *api, count int) (all []*Manager, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range count {
		m := New(cfg, a, a, slog.New(slog.DiscardHandler))
		all = append(all, m)
		wg.Go(func() { m.Run(ctx) })
	}
	return all, func() { cancel(); wg.Wait() }
}

func TestNoCallFailsWhileEverythingIsRenewed(t *testing.T) {
	cfg := quick()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		all, stop := replicas(t, cfg, a, 3)
		defer stop()
		const settled, life, every = 3 * time.Minute, 130 * time.Minute, 25 * time.Second
		time.Sleep(settled)
		serials, bundles := map[string]bool{}, map[string]bool{}
		random := rand.New(rand.NewPCG(1, 2))
		for began := time.Now(); time.Since(began) < life; time.Sleep(every) {
			a.mu.Lock()
			switch n := random.IntN(150); {
			case n == 0 && a.away == nil: // for some minutes at a time
				a.away = errors.New("the API is away")
			case n < 30:
				a.away = nil
			}
			a.mu.Unlock()
			for _, m := range all {
				for _, lag := range []time.Duration{0, time.Minute} {
					bundle := a.known(lag)
					serial, err := call(t, m, bundle)
					if err != nil {
						t.Fatalf("after %v, an API server %v behind: %v", time.Since(began), lag, err)
					}
					serials[serial], bundles[string(bundle)] = true, true
				}
			}
		}
		if len(serials) < 12 || len(bundles) < 6 {
			t.Errorf("only %d certificates and %d bundles in %v: nothing was proved", len(serials), len(bundles), life)
		}
	})
}

func TestReplicasAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		all, stop := replicas(t, quick(), a, 5)
		defer stop()
		time.Sleep(time.Minute)
		serials := map[string]bool{}
		for _, m := range all {
			serial, err := call(t, m, a.known(0))
			if err != nil || m.Ready() != nil {
				t.Error(err, m.Ready())
			}
			serials[serial] = true
		}
		if len(serials) != 1 || a.saved > 3 {
			t.Errorf("%d certificates, %d writes", len(serials), a.saved)
		}
	})
}

func TestAWipedBundleComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cfg := &api{}, quick()
		all, stop := replicas(t, cfg, a, 2)
		defer stop()
		time.Sleep(10 * time.Minute)
		a.mu.Lock()
		a.set(nil)
		a.mu.Unlock()
		time.Sleep(cfg.Interval)
		if _, err := call(t, all[0], a.known(0)); err != nil {
			t.Error(err)
		}
	})
}

func TestANewAuthorityThatNobodyTrustsDoesNotSign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cfg := &api{}, quick()
		all, stop := replicas(t, cfg, a, 2)
		defer stop()
		time.Sleep(10 * time.Minute)
		a.mu.Lock()
		a.noWrites = errors.New("forbidden")
		a.mu.Unlock()
		time.Sleep(45 * time.Minute) // the first authority has 5 minutes left
		if _, err := call(t, all[0], a.known(0)); err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		writes := a.saved
		a.noWrites = nil
		a.mu.Unlock()
		if writes > 20 {
			t.Errorf("%d writes: certificates were made over and over", writes)
		}
		time.Sleep(20 * time.Minute)
		if _, err := call(t, all[0], a.known(0)); err != nil {
			t.Error(err)
		}
	})
}

func TestAnInstallationThatSleptForYearsWakesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cfg := &api{}, quick()
		_, stop := replicas(t, cfg, a, 1)
		time.Sleep(10 * time.Minute)
		stop()
		time.Sleep(3 * 365 * 24 * time.Hour)
		all, stop := replicas(t, cfg, a, 2)
		defer stop()
		time.Sleep(cfg.Interval)
		for _, m := range all {
			if _, err := call(t, m, a.known(0)); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestADamagedSecretIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cfg := &api{data: map[string][]byte{keyState: []byte(`{"authorities":[{"certificate":"eA==","key":"eA=="}]}`)}}, quick()
		all, stop := replicas(t, cfg, a, 2)
		defer stop()
		time.Sleep(cfg.Interval)
		if _, err := call(t, all[0], a.known(0)); err != nil {
			t.Error(err)
		}
	})
}

func TestNoCallFailsWhenTheSecretIsEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cfg := &api{}, quick()
		all, stop := replicas(t, cfg, a, 3)
		defer stop()
		const settled, life, every = 10 * time.Minute, 20 * time.Minute, 5 * time.Second
		time.Sleep(settled)
		before, _ := call(t, all[0], a.known(0))
		a.mu.Lock()
		a.data, a.saved = nil, a.saved+1
		a.mu.Unlock()
		for began := time.Now(); time.Since(began) < life; time.Sleep(every) {
			for _, m := range all {
				for _, lag := range []time.Duration{0, time.Minute} {
					if _, err := call(t, m, a.known(lag)); err != nil {
						t.Fatalf("after %v, an API server %v behind: %v", time.Since(began), lag, err)
					}
				}
			}
		}
		if after, _ := call(t, all[0], a.known(0)); after == before {
			t.Error("the certificate of the lost authority is still in use")
		}
		if count := strings.Count(string(a.known(0)), "BEGIN CERTIFICATE"); count != 1 {
			t.Errorf("%d authorities are published, want the new one", count)
		}
	})
}

func TestAKeyThatIsNotTheCertificatesIsMadeAnew(t *testing.T) {
	other := newState(t, quick(), time.Now())
	for name, key := range map[string][]byte{"absent": nil, "damaged": []byte("x"), "another": other.Key} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, cfg := &api{}, quick()
				running, stop := replicas(t, cfg, a, 1)
				defer stop()
				time.Sleep(cfg.Interval)
				a.mu.Lock()
				a.data[keyKey], a.saved = key, a.saved+1
				a.mu.Unlock()
				late, stopLate := replicas(t, cfg, a, 1)
				defer stopLate()
				time.Sleep(cfg.Interval)
				for _, m := range append(running, late...) {
					if _, err := call(t, m, a.known(0)); err != nil || m.Ready() != nil {
						t.Error(err, m.Ready())
					}
				}
			})
		})
	}
}

// newState is what a replica makes that finds nothing.
func newState(t *testing.T, cfg Config, now time.Time) State {
	t.Helper()
	s, _, err := cfg.next(now, State{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnAuthorityOfAClockThatWasAheadIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cfg := &api{}, quick()
		ahead := newState(t, cfg, time.Now().Add(5*time.Hour))
		var err error
		if a.data, err = ahead.Encode(); err != nil {
			t.Fatal(err)
		}
		a.set(ahead.Bundle())
		all, stop := replicas(t, cfg, a, 2)
		defer stop()
		const settled = 10 * time.Minute
		time.Sleep(settled)
		for _, m := range all {
			if _, err := call(t, m, a.known(0)); err != nil {
				t.Error(err)
			}
		}
		if a.mu.Lock(); a.saved > 5 {
			t.Errorf("%d writes: certificates were made over and over", a.saved)
		}
		a.mu.Unlock()
	})
}

// Clocks that differ by more than certificates are backdated: what one replica makes, the other takes.
func TestReplicasWithDifferentClocksAgree(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Hosts = []string{host}
	now := time.Now()
	for name, other := range map[string]time.Duration{"ahead": 24 * time.Hour, "behind": -24 * time.Hour} {
		s := newState(t, cfg, now)
		if other > 0 {
			s = newState(t, cfg, now.Add(other))
		}
		changes := 0
		for range 10 {
			for _, clock := range []time.Time{now, now.Add(other)} {
				next, changed, err := cfg.next(clock, s, s.Bundle())
				if err != nil {
					t.Fatal(err)
				}
				if s = next; changed {
					changes++
				}
			}
		}
		if changes > 6 || issuer(s, cfg.Hosts, now) < 0 || issuer(s, cfg.Hosts, now.Add(other)) < 0 {
			t.Errorf("a clock that is %s: %d changes, and the certificate is of authority %d, for the other clock of %d", name, changes, issuer(s, cfg.Hosts, now), issuer(s, cfg.Hosts, now.Add(other)))
		}
	}
}

func TestAnotherNameIsServedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, cfg := &api{}, quick()
		cfg.Hosts = []string{"127.0.0.1"}
		_, stop := replicas(t, cfg, a, 1)
		time.Sleep(10 * time.Minute)
		stop()
		cfg.Hosts = []string{"127.0.0.1", host}
		all, stop := replicas(t, cfg, a, 1)
		defer stop()
		time.Sleep(cfg.Interval)
		if _, err := call(t, all[0], a.known(0)); err != nil {
			t.Error(err)
		}
	})
}

func TestValidateNamesAllThatIsWrong(t *testing.T) {
	usual := DefaultConfig()
	usual.Hosts = []string{host}
	if err := usual.Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	err := Config{Delay: time.Second, Interval: time.Second, Validity: time.Second, AuthorityValidity: time.Second}.Validate()
	for _, says := range []string{"name", "twice the interval", "six times that", "an authority of 1s"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}

func FuzzDecode(f *testing.F) {
	authority, err := quick().newAuthority(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	data, err := State{Authorities: []Authority{authority}}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[keyState], authority.Certificate, authority.Key)
	f.Add([]byte("{}"), []byte("x"), []byte(""))
	f.Fuzz(func(t *testing.T, state, certificate, key []byte) {
		s, decodeErr := Decode(map[string][]byte{keyState: state, keyCertificate: certificate, keyKey: key})
		if decodeErr != nil {
			return
		}
		cfg := quick()
		next, _, nextErr := cfg.next(time.Now(), s, certificate)
		if nextErr != nil {
			return
		}
		if issuer(next, cfg.Hosts, time.Now()) < 0 {
			t.Error("the next state has no certificate that can be used")
		}
		if _, changed, err := cfg.next(time.Now(), next, certificate); changed || err != nil {
			t.Errorf("the next state is not at rest: %v", err)
		}
	})
}
