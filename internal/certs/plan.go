// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// next is what the state should be now, when published is what API servers trust. Called again with its own result it changes
// nothing until time has passed or published has changed.
func (c Config) next(now time.Time, s State, published []byte) (_ State, changed bool, err error) {
	s.Authorities = slices.Clone(s.Authorities)
	before := len(s.Authorities)
	s.Authorities = slices.DeleteFunc(s.Authorities, func(a Authority) bool { return remaining(a.Certificate, now) <= 0 })
	changed = len(s.Authorities) != before
	if mark(s.Authorities, published, now) {
		changed = true
	}
	if newest := len(s.Authorities) - 1; newest < 0 || !begun(s.Authorities[newest], now) || remaining(s.Authorities[newest].Certificate, now) < c.AuthorityValidity/3 {
		authority, makeErr := c.newAuthority(now)
		if makeErr != nil {
			return State{}, false, makeErr
		}
		s.Authorities, changed = append(s.Authorities, authority), true
	}

	current := issuer(s, c.Hosts, now)
	signer := max(c.signer(s.Authorities, now), current) // what replicas show may sign again, whatever is published
	if current < signer || c.due(s, s.Authorities[signer], now) {
		if s.Certificate, s.Key, err = c.issue(s.Authorities[signer], now); err != nil {
			return State{}, false, err
		}
		s.Issued, current, changed = now.UTC().Round(0), signer, true
	}
	if current > 0 && now.Sub(s.Issued) >= c.Delay { // every replica has the certificate, and so nobody the older authorities'
		s.Authorities, changed = slices.Delete(s.Authorities, 0, current), true
	}
	return s, changed, nil
}

// due reports whether a third of the certificate's time is left, and another one of that authority would last longer.
func (c Config) due(s State, by Authority, now time.Time) bool {
	left := remaining(s.Certificate, now)
	longest := min(c.Validity, remaining(by.Certificate, now))
	return left < (left+now.Sub(s.Issued))/3 && left < longest-time.Second // certificates know whole seconds
}

// mark notes since when authorities are trusted.
func mark(authorities []Authority, published []byte, now time.Time) (changed bool) {
	for i := range authorities {
		a := &authorities[i]
		switch trusted := contains(published, a.Certificate); {
		case trusted && a.Trusted.IsZero():
			a.Trusted, changed = now.UTC().Round(0), true
		case !trusted && !a.Trusted.IsZero():
			a.Trusted, changed = time.Time{}, true
		}
	}
	return changed
}

// signer is the newest authority that every API server has had time to learn of. When there is none, waiting helps nobody: the
// newest that they trust, or else the oldest, which is published with the others. The newest of all has begun, others may not have.
func (c Config) signer(authorities []Authority, now time.Time) int {
	for i, a := range slices.Backward(authorities) {
		if !a.Trusted.IsZero() && now.Sub(a.Trusted) >= c.Delay && begun(a, now) {
			return i
		}
	}
	for i, a := range slices.Backward(authorities) {
		if !a.Trusted.IsZero() && begun(a, now) {
			return i
		}
	}
	return max(slices.IndexFunc(authorities, func(a Authority) bool { return begun(a, now) }), 0)
}

// begun reports whether an authority is valid yet. One that is not was made by a clock that was ahead, and API servers refuse what
// it signs.
func begun(a Authority, now time.Time) bool {
	certificate, err := parse(a.Certificate)
	return err == nil && !now.Before(certificate.NotBefore)
}

// issuer is which authority the webhook's certificate is of, or -1 when it is of none, has expired, has not the right names or not
// the key that it was made for.
func issuer(s State, hosts []string, now time.Time) int {
	pair, err := tls.X509KeyPair(s.Certificate, s.Key)
	if err != nil {
		return -1
	}
	for _, host := range hosts {
		if pair.Leaf.VerifyHostname(host) != nil {
			return -1
		}
	}
	for i, a := range s.Authorities {
		if verifies(pair.Leaf, a.Certificate, now) {
			return i
		}
	}
	return -1
}

// knownFor reports whether API servers have trusted the signer of the state's certificate for so long.
func (c Config) knownFor(s State, least time.Duration, now time.Time) bool {
	i := issuer(s, c.Hosts, now)
	return i >= 0 && !s.Authorities[i].Trusted.IsZero() && now.Sub(s.Authorities[i].Trusted) >= least
}

// bundle is what API servers are to trust: the state's authorities. While these are new they stand beside what is published, which
// signed what replicas show: the state was lost, or the certificates were somebody else's until now.
func (c Config) bundle(s State, published []byte, now time.Time) []byte {
	bundle := s.Bundle()
	if c.knownFor(s, 2*c.Delay, now) { // one for API servers, one for replicas
		return bundle
	}
	for {
		var block *pem.Block
		if block, published = pem.Decode(published); block == nil {
			return bundle
		}
		if text := pem.EncodeToMemory(block); remaining(text, now) > 0 && !contains(bundle, text) {
			bundle = append(bundle, text...)
		}
	}
}

// verifies reports whether who trusts the bundle trusts the certificate.
func verifies(certificate *x509.Certificate, bundle []byte, now time.Time) bool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err := certificate.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now})
	return err == nil
}

// remaining is how long a certificate lasts; nothing if it cannot be read.
func remaining(text []byte, now time.Time) time.Duration {
	certificate, err := parse(text)
	if err != nil {
		return 0
	}
	return certificate.NotAfter.Sub(now)
}
