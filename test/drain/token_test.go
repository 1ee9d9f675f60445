// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
)

// Who has credentials from the start: the function, and two who may do nothing.
const function, stranger, misconfigured = "AKFUNCTION", "AKSTRANGER", "AKMISCONFIGURED"

// principal is who signs with an access key ID.
type principal struct {
	secret string
	groups func() ([]string, error) // of the access entry
}

// authenticator is a cluster's: it knows principals by access key ID.
type authenticator struct {
	mu    sync.Mutex
	known map[string]principal
}

func newAuthenticator() *authenticator {
	in := func(groups ...string) func() ([]string, error) {
		return func() ([]string, error) { return groups, nil }
	}
	return &authenticator{known: map[string]principal{
		function:      {"secret-1", in("multus-vpc-drain")},
		misconfigured: {"secret-2", in()},
		stranger:      {"secret-3", func() ([]string, error) { return nil, errors.New("no access entry") }},
	}}
}

func (a *authenticator) add(keyID string, p principal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[keyID] = p
}

func (a *authenticator) of(keyID string) principal {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[keyID]
}

// authenticate holds a token to the form, and to the signature as STS would.
// https://github.com/kubernetes-sigs/aws-iam-authenticator/blob/v0.7.2/pkg/token/token.go (Verify)
func (a *authenticator) authenticate(token string) (kubernetes.User, error) {
	encoded, ok := strings.CutPrefix(token, "k8s-aws-v1.")
	if !ok || len(token) > 4096 {
		return kubernetes.User{}, errors.New("no token of EKS")
	}
	raw, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return kubernetes.User{}, err
	}
	u, err := url.Parse(string(raw))
	if err != nil {
		return kubernetes.User{}, err
	}
	if host := regexp.MustCompile(`^sts(\.[a-z1-9-]+)?\.amazonaws\.com(\.cn)?$`); u.Scheme != "https" || !host.MatchString(u.Host) || u.Path != "/" {
		return kubernetes.User{}, fmt.Errorf("the token is for %s://%s%s", u.Scheme, u.Host, u.Path)
	}
	q := u.Query()
	known := []string{
		"action", "version", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-security-token", "x-amz-signature",
		"x-amz-signedheaders",
	}
	for k, v := range q {
		if !slices.Contains(known, strings.ToLower(k)) || len(v) != 1 {
			return kubernetes.User{}, fmt.Errorf("the token has %s %q", k, v)
		}
	}
	at, err := time.Parse("20060102T150405Z", q.Get("X-Amz-Date"))
	if err != nil {
		return kubernetes.User{}, err
	}
	if age := time.Since(at); q.Get("Action") != "GetCallerIdentity" || age > 15*time.Minute || age < -time.Minute {
		return kubernetes.User{}, fmt.Errorf("the token asks for %s and is %s old", q.Get("Action"), age)
	}
	if !slices.Contains(strings.Split(q.Get("X-Amz-SignedHeaders"), ";"), "x-k8s-aws-id") {
		return kubernetes.User{}, errors.New("the token does not say which cluster it is for")
	}
	scope := strings.Split(q.Get("X-Amz-Credential"), "/")
	who := a.of(scope[0])
	if len(scope) != 5 || who.secret == "" {
		return kubernetes.User{}, fmt.Errorf("nobody has the credential %s", q.Get("X-Amz-Credential"))
	}
	signature, err := signatureOf(u, aws.Credentials{AccessKeyID: scope[0], SecretAccessKey: who.secret, SessionToken: q.Get("X-Amz-Security-Token")}, scope[2], at)
	if err != nil || signature != q.Get("X-Amz-Signature") {
		return kubernetes.User{}, fmt.Errorf("SignatureDoesNotMatch (%w)", err)
	}
	in, err := who.groups()
	if err != nil {
		return kubernetes.User{}, err
	}
	return kubernetes.User{Name: "arn:aws:sts::123456789012:assumed-role/" + scope[0] + "/lambda", Groups: in}, nil
}

// signatureOf computes the signature of the request that the cluster makes of the URL, with its own name.
func signatureOf(u *url.URL, keys aws.Credentials, region string, at time.Time) (string, error) {
	bare, q := *u, u.Query()
	for k := range q {
		if strings.HasPrefix(k, "X-Amz-") && k != "X-Amz-Expires" {
			q.Del(k)
		}
	}
	bare.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, bare.String(), nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("x-k8s-aws-id", clusterName)
	const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), keys, r, emptySHA256, "sts", region, at)
	if err != nil {
		return "", err
	}
	got, err := url.Parse(signed)
	if err != nil {
		return "", err
	}
	return got.Query().Get("X-Amz-Signature"), nil
}
