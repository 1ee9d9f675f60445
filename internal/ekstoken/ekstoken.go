// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package ekstoken makes the bearer tokens by which a cluster of EKS knows an IAM principal. A token is a request to STS, presigned,
// that asks who signed it: the cluster sends it and reads the answer. So making one calls nobody, and it names the cluster, so that
// no other one can use it. The Lambda function of the lifecycle hook uses it. What the principal may do is the cluster's affair.
//
// https://github.com/kubernetes-sigs/aws-iam-authenticator#api-authorization-from-outside-a-cluster
package ekstoken

import (
	"context"
	"encoding/base64"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	prefix        = "k8s-aws-v1."
	clusterHeader = "x-k8s-aws-id"
	// expires is what authenticators have always been sent. STS does not look at it: what is signed is good for 15 minutes.
	expires = "60"
	// lifetime is a minute less than those 15, for clocks that differ.
	lifetime = 14 * time.Minute
)

// Source makes tokens for one cluster, and keeps one until it has to be renewed. Its methods may be called concurrently.
type Source struct {
	cluster string
	sts     *sts.PresignClient
	keys    aws.CredentialsProvider

	mu    sync.Mutex
	token string
	until time.Time
}

// New makes a source. The Region of sdk decides which STS endpoint the cluster will ask: it is that of the partition.
func New(sdk aws.Config, cluster string) *Source {
	return &Source{cluster: cluster, sts: sts.NewPresignClient(sts.NewFromConfig(sdk)), keys: sdk.Credentials}
}

// Token returns a token that is valid for a minute at least.
func (s *Source) Token(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.until) {
		return s.token, nil
	}
	now := time.Now()
	request, err := s.sts.PresignGetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}, sts.WithPresignClientFromClientOptions(
		sts.WithAPIOptions(smithyhttp.SetHeaderValue(clusterHeader, s.cluster), smithyhttp.SetHeaderValue("X-Amz-Expires", expires)),
	))
	if err != nil {
		return "", fmt.Errorf("sign a token for cluster %s: %w", s.cluster, err)
	}
	until := now.Add(lifetime)
	if keys, err := s.keys.Retrieve(ctx); err == nil && keys.CanExpire && keys.Expires.Before(until) {
		until = keys.Expires // what they signed ends with them
	}
	s.token, s.until = prefix+base64.RawURLEncoding.EncodeToString([]byte(request.URL)), until
	return s.token, nil
}
