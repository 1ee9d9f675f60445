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
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
)

// Who has credentials, and the groups of their access entries. The lab gives the function its name and "lab".
const function, stranger, misconfigured = "drains", "AKSTRANGER", "AKMISCONFIGURED"

var (
	secrets = map[string]string{function: "lab", stranger: "secret-2", misconfigured: "secret-3"}
	groups  = map[string][]string{function: {"multus-vpc-drain"}, misconfigured: {}}
)

// authenticate is a cluster's authenticator: it holds a token to the form, and to the signature as STS would.
// https://github.com/kubernetes-sigs/aws-iam-authenticator/blob/v0.7.2/pkg/token/token.go (Verify)
func authenticate(token string) (kubernetes.User, error) {
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
	if len(scope) != 5 || secrets[scope[0]] == "" {
		return kubernetes.User{}, fmt.Errorf("nobody has the credential %s", q.Get("X-Amz-Credential"))
	}
	signature, err := signatureOf(u, aws.Credentials{AccessKeyID: scope[0], SecretAccessKey: secrets[scope[0]], SessionToken: q.Get("X-Amz-Security-Token")}, scope[2], at)
	if err != nil || signature != q.Get("X-Amz-Signature") {
		return kubernetes.User{}, fmt.Errorf("SignatureDoesNotMatch (%w)", err)
	}
	in, ok := groups[scope[0]]
	if !ok {
		return kubernetes.User{}, fmt.Errorf("%s has no access entry", scope[0])
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
