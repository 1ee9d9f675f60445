// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package certs makes the certificates of an admission webhook and renews them without a call that fails. The injector uses it
// where no cert-manager does that. All replicas share one [State], kept in a Secret: whoever saves first wins, the others take
// over what it saved. A new authority is published beside the old one, signs only after every API server had time to learn of
// it, and the old one goes only after every replica had time to change its certificate. How secrets and webhook configurations
// are read and written does not belong here.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Config says what certificates there are to be, and how long they last. All fields are needed.
type Config struct {
	Hosts []string // names and addresses by which the API server calls the webhook
	// AuthorityValidity and Validity are how long an authority and the webhook's certificate last. Both are renewed when a
	// third is left.
	AuthorityValidity, Validity time.Duration
	// Delay is how long a change takes until every replica and every API server has it, at most.
	Delay time.Duration
	// Interval is how often a replica looks at what the others did: well below Delay.
	Interval time.Duration
}

// DefaultConfig lets certificates last for months and changes take ten minutes. An API server has a changed webhook
// configuration within a second as a rule, as it watches it.
func DefaultConfig() Config {
	return Config{AuthorityValidity: 365 * 24 * time.Hour, Validity: 60 * 24 * time.Hour, Delay: 10 * time.Minute, Interval: 10 * time.Second}
}

// Validate reports all that is wrong.
func (c Config) Validate() error {
	var errs []error
	if len(c.Hosts) == 0 {
		errs = append(errs, errors.New("a certificate needs the name by which the API server calls"))
	}
	if c.Interval <= 0 || c.Delay < 2*c.Interval {
		errs = append(errs, fmt.Errorf("the delay of %v must be at least twice the interval of %v, which must be above zero", c.Delay, c.Interval))
	}
	const least = 6 // a third is left for renewal, and twice the wait fits into that
	if c.Validity < least*c.Interval {
		errs = append(errs, fmt.Errorf("certificates of %v are too short-lived for an interval of %v: want six times that", c.Validity, c.Interval))
	}
	if c.AuthorityValidity < max(least*c.Delay, c.Validity) {
		errs = append(errs, fmt.Errorf("an authority of %v is too short-lived: want six times the delay of %v, and no less than its certificates of %v", c.AuthorityValidity, c.Delay, c.Validity))
	}
	return errors.Join(errs...)
}

// Authority is one that signs, or signed.
type Authority struct {
	Certificate []byte `json:"certificate"` // PEM
	Key         []byte `json:"key"`         // PEM
	// Trusted is since when the webhook configuration has it; zero when it does not.
	Trusted time.Time `json:"trusted,omitzero"`
}

// State is what the replicas share. The zero value is that of an installation that has just been made.
type State struct {
	Authorities []Authority // the oldest first
	Certificate []byte      // PEM, the webhook's
	Key         []byte      // PEM
	Issued      time.Time   // when Certificate was made
}

// Keys of the Secret.
const (
	keyCertificate = "tls.crt"
	keyKey         = "tls.key"
	keyBundle      = "ca.crt"
	keyState       = "state.json"
)

// details are what has no usual place in a Secret.
type details struct {
	Authorities []Authority `json:"authorities"`
	Issued      time.Time   `json:"issued"`
}

// Encode is the state as a Secret's data.
func (s State) Encode() (map[string][]byte, error) {
	text, err := json.Marshal(details{s.Authorities, s.Issued})
	if err != nil {
		return nil, fmt.Errorf("encode certificates: %w", err)
	}
	return map[string][]byte{keyCertificate: s.Certificate, keyKey: s.Key, keyBundle: s.Bundle(), keyState: text}, nil
}

// Decode reads a Secret's data. A Secret without data is the zero value.
func Decode(data map[string][]byte) (State, error) {
	if len(data[keyState]) == 0 {
		return State{}, nil
	}
	var d details
	if err := json.Unmarshal(data[keyState], &d); err != nil {
		return State{}, fmt.Errorf("decode %s: %w", keyState, err)
	}
	for i, a := range d.Authorities {
		if _, err := tls.X509KeyPair(a.Certificate, a.Key); err != nil {
			return State{}, fmt.Errorf("decode %s: authority %d: %w", keyState, i, err)
		}
	}
	return State{Authorities: d.Authorities, Certificate: data[keyCertificate], Key: data[keyKey], Issued: d.Issued}, nil
}

// Bundle has the certificates of all authorities: what API servers are to trust.
func (s State) Bundle() []byte {
	var bundle []byte
	for _, a := range s.Authorities {
		bundle = append(bundle, a.Certificate...)
	}
	return bundle
}

// contains reports whether a bundle has a certificate.
func contains(bundle, certificate []byte) bool {
	want, _ := pem.Decode(certificate)
	for want != nil {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return false
		}
		if string(block.Bytes) == string(want.Bytes) {
			return true
		}
	}
	return false
}

// parse reads the first certificate of a PEM text.
func parse(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
