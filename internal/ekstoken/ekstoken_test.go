// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ekstoken_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/ekstoken"
)

func source(region string) *ekstoken.Source {
	return ekstoken.New(aws.Config{Region: region, Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", "session")}, "prod")
}

func decode(t *testing.T, s *ekstoken.Source) *url.URL {
	t.Helper()
	token, err := s.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	encoded, ok := strings.CutPrefix(token, "k8s-aws-v1.")
	if !ok {
		t.Fatalf("token %q", token)
	}
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestTokenIsWhatAuthenticatorsTake holds it to the rules of aws-iam-authenticator's verifier.
// https://github.com/kubernetes-sigs/aws-iam-authenticator/blob/v0.7.2/pkg/token/token.go (Verify)
func TestTokenIsWhatAuthenticatorsTake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // its clock stands still
		for region, host := range map[string]string{
			"us-west-2":     "sts.us-west-2.amazonaws.com",
			"us-gov-west-1": "sts.us-gov-west-1.amazonaws.com",
			"cn-north-1":    "sts.cn-north-1.amazonaws.com.cn",
		} {
			u := decode(t, source(region))
			if u.Scheme != "https" || u.Host != host || u.Path != "/" {
				t.Errorf("%s: %s", region, u)
			}
			q := u.Query()
			signature := q.Get("X-Amz-Signature")
			q.Del("X-Amz-Signature")
			want := url.Values{
				"Action": {"GetCallerIdentity"}, "Version": {"2011-06-15"}, "X-Amz-Algorithm": {"AWS4-HMAC-SHA256"},
				"X-Amz-Credential": {"AKID/" + time.Now().UTC().Format("20060102") + "/" + region + "/sts/aws4_request"},
				"X-Amz-Date":       {time.Now().UTC().Format("20060102T150405Z")}, "X-Amz-Expires": {"60"},
				"X-Amz-Security-Token": {"session"}, "X-Amz-SignedHeaders": {"host;x-k8s-aws-id"},
			}
			if diff := cmp.Diff(want, q); diff != "" {
				t.Errorf("%s (-want +got):\n%s", region, diff)
			}
			// What the cluster sends, with its own name in the header, has to have this signature.
			if got := sign(t, u, region, "prod"); got != signature {
				t.Errorf("%s: signature %s, STS computes %s", region, signature, got)
			}
			if got := sign(t, u, region, "staging"); got == signature {
				t.Errorf("%s: the token is good for another cluster", region)
			}
		}
	})
}

// sign computes the signature of the request that a cluster of that name makes of the URL.
func sign(t *testing.T, u *url.URL, region, cluster string) string {
	t.Helper()
	bare := *u
	q := bare.Query()
	for _, k := range []string{"X-Amz-Signature", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-SignedHeaders"} {
		q.Del(k)
	}
	bare.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, bare.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-k8s-aws-id", cluster)
	const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret", SessionToken: "session"},
		r, emptySHA256, "sts", region, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	got, err := url.Parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	return got.Query().Get("X-Amz-Signature")
}

func TestTokenIsRenewedBeforeItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := source("us-west-2")
		first := decode(t, s).Query().Get("X-Amz-Date")
		time.Sleep(13 * time.Minute)
		if again := decode(t, s).Query().Get("X-Amz-Date"); again != first {
			t.Errorf("renewed after 13 minutes")
		}
		time.Sleep(time.Minute)
		if again := decode(t, s).Query().Get("X-Amz-Date"); again == first {
			t.Errorf("not renewed after 14 minutes")
		}
	})
}

func TestTokenEndsWithItsCredentials(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret", CanExpire: true, Expires: time.Now().Add(5 * time.Minute)}, nil
		})
		s := ekstoken.New(aws.Config{Region: "us-west-2", Credentials: keys}, "prod")
		first := decode(t, s).Query().Get("X-Amz-Date")
		time.Sleep(5 * time.Minute)
		if again := decode(t, s).Query().Get("X-Amz-Date"); again == first {
			t.Error("a token of credentials that have ended")
		}
	})
}

func TestTokenSaysWhyThereIsNone(t *testing.T) {
	t.Parallel()
	none := errors.New("no keys")
	keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, none })
	_, err := ekstoken.New(aws.Config{Region: "us-west-2", Credentials: keys}, "prod").Token(t.Context())
	if !errors.Is(err, none) || !strings.HasPrefix(err.Error(), "sign a token for cluster prod: ") {
		t.Errorf("got %v", err)
	}
}
