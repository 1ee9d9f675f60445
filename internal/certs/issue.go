// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"
)

// backdate is for clocks that are behind ours.
const backdate = time.Hour

// newAuthority makes one that signs certificates for webhooks and no other authorities.
func (c Config) newAuthority(now time.Time) (Authority, error) {
	template, err := blank("multus-vpc injector authority", now, now.Add(c.AuthorityValidity))
	if err != nil {
		return Authority{}, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	certificate, key, err := sign(template, nil)
	if err != nil {
		return Authority{}, fmt.Errorf("make an authority: %w", err)
	}
	return Authority{Certificate: certificate, Key: key}, nil
}

// issue makes the webhook's certificate.
func (c Config) issue(by Authority, now time.Time) (certificate, key []byte, err error) {
	signer, err := tls.X509KeyPair(by.Certificate, by.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("read the authority: %w", err)
	}
	template, err := blank("multus-vpc injector", now, now.Add(c.Validity))
	if err != nil {
		return nil, nil, err
	}
	if end := signer.Leaf.NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range c.Hosts {
		if ip, parseErr := netip.ParseAddr(host); parseErr == nil {
			template.IPAddresses = append(template.IPAddresses, net.IP(ip.AsSlice()))
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if certificate, key, err = sign(template, &signer); err != nil {
		return nil, nil, fmt.Errorf("make a certificate for %v: %w", c.Hosts, err)
	}
	return certificate, key, nil
}

// blank has what authorities and certificates have in common. Two authorities must not have one name: a verifier that finds them
// by it would try both, but some take the first.
func blank(name string, now, end time.Time) (*x509.Certificate, error) {
	const bits = 127
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), bits))
	if err != nil {
		return nil, fmt.Errorf("choose a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprintf("%s %x", name, serial.Bytes()[:4])},
		NotBefore: now.Add(-backdate), NotAfter: end,
	}, nil
}

// sign makes a key and its certificate, signed by itself when by is nil.
func sign(template *x509.Certificate, by *tls.Certificate) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	parent, signer := template, crypto.Signer(private)
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey.(crypto.Signer) // every key that tls reads is one
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
