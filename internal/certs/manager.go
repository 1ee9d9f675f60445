// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// ErrConflict says that somebody else wrote first.
var ErrConflict = errors.New("changed meanwhile")

// Store keeps what the replicas share.
type Store interface {
	// Load returns data and a version, which Save wants.
	Load(ctx context.Context) (data map[string][]byte, version string, err error)
	// Save fails with [ErrConflict] when the version is not the last any more.
	Save(ctx context.Context, data map[string][]byte, version string) error
}

// Trust is what API servers trust: the caBundle of the webhook configuration.
type Trust interface {
	// Bundle returns the bundle and a version, which Publish wants. Webhooks that do not agree have none.
	Bundle(ctx context.Context) (bundle []byte, version string, err error)
	// Publish fails with [ErrConflict] when the version is not the last any more.
	Publish(ctx context.Context, bundle []byte, version string) error
}

// Manager keeps one replica's certificate. Make it with [New], run it with [Manager.Run].
type Manager struct {
	cfg     Config
	store   Store
	trust   Trust
	log     *slog.Logger
	serving atomic.Pointer[serving]
	ready   atomic.Bool
	failed  atomic.Uint64
}

// serving is what the replica shows to callers.
type serving struct {
	pair tls.Certificate
	text string // PEM
}

// New makes the manager of one replica.
func New(cfg Config, store Store, trust Trust, log *slog.Logger) *Manager {
	return &Manager{cfg: cfg, store: store, trust: trust, log: log}
}

// Run keeps certificate and trust up to date until ctx ends. Nothing that goes wrong ends it: the certificate is good for
// weeks, and the next look comes soon.
func (m *Manager) Run(ctx context.Context) {
	const soon = time.Second
	for {
		pause := m.cfg.Interval/2 + rand.N(m.cfg.Interval/2)
		if err := m.Step(ctx); errors.Is(err, ErrConflict) {
			pause = min(pause, rand.N(soon))
		} else if err != nil && ctx.Err() == nil {
			m.failed.Add(1)
			m.log.Error("certificates not looked after", "error", err)
			pause = min(pause, soon)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// Step does what is to be done now. [ErrConflict] says that another replica did something, and to look again.
//
// Trust is read before the state: whoever published what we read had saved its state before, so the state that we read
// next is no older, and what we publish no less than what is there.
func (m *Manager) Step(ctx context.Context) error {
	published, trustVersion, err := m.trust.Bundle(ctx)
	if err != nil {
		return err
	}
	data, version, err := m.store.Load(ctx)
	if err != nil {
		return err
	}
	state, err := Decode(data)
	if err != nil {
		m.log.Error("the certificates cannot be read and are made anew", "error", err)
		state = State{}
	}
	now := time.Now()
	next, changed, err := m.cfg.next(now, state, published)
	if err != nil {
		return err
	}
	if changed {
		encoded, encodeErr := next.Encode()
		if encodeErr != nil {
			return encodeErr
		}
		if err = m.store.Save(ctx, encoded, version); err != nil {
			return fmt.Errorf("save certificates: %w", err)
		}
		m.log.Info("certificates changed", "authorities", len(next.Authorities), "issued", next.Issued)
	}
	if err = m.use(next, published, now); err != nil {
		return err
	}
	bundle := m.cfg.bundle(next, published, now)
	if string(bundle) != string(published) {
		if err = m.trust.Publish(ctx, bundle, trustVersion); err != nil {
			return fmt.Errorf("publish the authorities: %w", err)
		}
		m.log.Info("authorities published", "authorities", len(next.Authorities))
	}
	m.ready.Store(true)
	return nil
}

// use shows the state's certificate to callers from now on: later, when the state was lost, and API servers trust what is shown but
// may not know yet who signed the other.
func (m *Manager) use(s State, published []byte, now time.Time) error {
	if old := m.serving.Load(); old != nil {
		known := m.cfg.knownFor(s, m.cfg.Delay, now) || verifies(old.pair.Leaf, s.Bundle(), now)
		if old.text == string(s.Certificate) || !known && verifies(old.pair.Leaf, published, now.Add(m.cfg.Interval)) {
			return nil
		}
	}
	pair, err := tls.X509KeyPair(s.Certificate, s.Key)
	if err != nil {
		return fmt.Errorf("read the webhook's certificate: %w", err)
	}
	m.serving.Store(&serving{pair, string(s.Certificate)})
	return nil
}

// ErrNotReady says that there is no certificate yet, or that nobody trusts it yet.
var ErrNotReady = errors.New("the webhook's certificate is not there yet, or its authority not published")

// Ready is nil once there is a certificate that API servers trust.
func (m *Manager) Ready() error {
	if !m.ready.Load() {
		return ErrNotReady
	}
	return nil
}

// Certificate is for [tls.Config.GetCertificate].
func (m *Manager) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s := m.serving.Load()
	if s == nil {
		return nil, ErrNotReady
	}
	return &s.pair, nil
}

// Expires is when the webhook's certificate ends; zero when there is none.
func (m *Manager) Expires() time.Time {
	s := m.serving.Load()
	if s == nil {
		return time.Time{}
	}
	return s.pair.Leaf.NotAfter
}

// Failures is how many looks failed, other than by a conflict with another replica.
func (m *Manager) Failures() uint64 { return m.failed.Load() }
