// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package metadata is the instance metadata service (IMDS) of one instance of the lab's VPC, as agents and SDKs meet it
// at 169.254.169.254: version 2 only, so every read needs a token. It shows the account as it was one IMDS lag ago, and
// hands out credentials by which the lab's EC2 endpoint knows the instance. It holds no state but its tokens. Hop limits
// and signatures are not the lab's concern.
package metadata

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Config makes a [Service].
type Config struct {
	Cloud      *vpc.Cloud
	InstanceID string
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Service answers for one instance. It is safe for concurrent use.
type Service struct {
	config Config

	mu     sync.Mutex
	tokens map[string]time.Time // token → when it expires
	serial int
}

// New makes the metadata service of an instance. When the instance does not exist (yet, or not any more) all paths
// answer 404.
func New(c Config) *Service {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{config: c, tokens: make(map[string]time.Time)}
}

// Headers and path of IMDSv2's session.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
const (
	tokenPath   = "/latest/api/token"
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	maxTTL      = 21600 // seconds; the guide: "a minimum of one second and a maximum of six hours"
)

// ServeHTTP implements [http.Handler].
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "EC2ws")
	w.Header().Set("Content-Type", "text/plain")
	switch {
	case r.Method == http.MethodPut && r.URL.Path == tokenPath:
		s.serveToken(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
	case !s.authorized(r.Header.Get(tokenHeader)):
		http.Error(w, "401 - Unauthorized", http.StatusUnauthorized)
	default:
		s.serveRead(w, r)
	}
}

func (s *Service) serveToken(w http.ResponseWriter, r *http.Request) {
	// The guide: PUT requests with an X-Forwarded-For header are rejected, so that open proxies get no token.
	if r.Header.Get("X-Forwarded-For") != "" {
		http.Error(w, "403 - Forbidden", http.StatusForbidden)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	if err != nil || ttl < 1 || ttl > maxTTL {
		http.Error(w, "400 - Bad Request", http.StatusBadRequest)
		return
	}
	w.Header().Set(ttlHeader, strconv.Itoa(ttl))
	_, _ = io.WriteString(w, s.newToken(time.Duration(ttl)*time.Second)) // the client is gone: nobody is left to tell
}

func (s *Service) newToken(ttl time.Duration) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.config.Now()
	for token, expires := range s.tokens {
		if !now.Before(expires) {
			delete(s.tokens, token)
		}
	}
	s.serial++
	token := fmt.Sprintf("AQAEALab%s-%08d==", strings.TrimPrefix(s.config.InstanceID, "i-"), s.serial)
	s.tokens[token] = now.Add(ttl)
	return token
}

func (s *Service) authorized(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	expires, ok := s.tokens[token]
	return ok && s.config.Now().Before(expires)
}

func (s *Service) serveRead(w http.ResponseWriter, r *http.Request) {
	now := s.config.Now()
	view := s.config.Cloud.View(now.Add(-s.config.Cloud.Lags().IMDS))
	instance, ok := view.Instance(s.config.InstanceID)
	if !ok || instance.State == vpc.StateTerminated {
		http.Error(w, "404 - Not Found", http.StatusNotFound)
		return
	}
	body, ok := documents(s.config.Cloud, view, instance, now).read(r.URL.Path)
	if !ok {
		http.Error(w, "404 - Not Found", http.StatusNotFound)
		return
	}
	_, _ = io.WriteString(w, body) // as above
}

// keyPrefix marks an access key ID of the lab: ASIA is what temporary credentials begin with.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
const keyPrefix = "ASIALAB"

// AccessKeyID is the key ID of the credentials that the service of an instance hands out.
func AccessKeyID(instanceID string) string {
	return keyPrefix + strings.ToUpper(strings.TrimPrefix(instanceID, "i-"))
}

// Caller is the other way round: the instance whose service handed out accessKeyID, or the key ID itself when none did.
func Caller(accessKeyID string) string {
	if hex, ok := strings.CutPrefix(accessKeyID, keyPrefix); ok {
		return "i-" + strings.ToLower(hex)
	}
	return accessKeyID
}
