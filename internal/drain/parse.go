// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// The variables of [Parse].
const (
	VarNodes           = "DrainNodes"      // true: drain workers that end; default false
	VarTimeout         = "DrainTimeout"    // [Config.Timeout]; default 10m
	VarOnTimeout       = "DrainOnTimeout"  // [Config.OnTimeout]; default continue
	VarClusterName     = "ClusterName"     // [Cluster.Name]
	VarClusterEndpoint = "ClusterEndpoint" // [Cluster.Endpoint]
	VarClusterCA       = "ClusterCA"       // [Cluster.CA], PEM in base64 as `aws eks describe-cluster` prints it
)

// Vars are the names of all variables of [Parse].
func Vars() []string {
	return []string{VarNodes, VarTimeout, VarOnTimeout, VarClusterName, VarClusterEndpoint, VarClusterCA}
}

// Config says whether and how nodes are drained.
type Config struct {
	Nodes bool // false: they are not, and nothing else is set
	// Timeout is how long a drain may take, from when the instance began to end. A lifecycle hook holds an instance for so long, and
	// an Auto Scaling group does not get smaller or newer faster than that.
	Timeout   time.Duration
	OnTimeout Action
	Cluster   Cluster
}

// Cluster is where the node is.
type Cluster struct {
	Name     string
	Endpoint string // the API server's, https://…
	CA       []byte // PEM
}

// Action is what is done when the time is up.
type Action string

// The actions.
const (
	Continue Action = "continue" // let the instance end with the pods that are on it
	Force    Action = "force"    // delete them before that, with at most 30 s for each to end
)

const (
	defaultTimeout  = 10 * time.Minute
	shortestTimeout = 10 * time.Second
	// longestTimeout is what one invocation of a Lambda function, 15 minutes, can wait for, without the deletions of [Force] and
	// what comes after a drain.
	// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
	longestTimeout = 12 * time.Minute
)

// Parse reads a configuration from variables, by a lookup that returns "" for what is not set, and reports all that is wrong at once.
// Where nodes are not to be drained the other variables do not count.
func Parse(lookup func(name string) string) (Config, error) {
	text := func(name string) string { return strings.TrimSpace(lookup(name)) }
	var errs []error
	add := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{name}, args...)...))
	}
	switch v := strings.ToLower(text(VarNodes)); v {
	case "true", "yes":
	case "", "false", "no":
		return Config{}, nil
	default:
		return Config{}, fmt.Errorf("%s: %q is neither true nor false", VarNodes, v)
	}
	cfg := Config{Nodes: true, Timeout: defaultTimeout, OnTimeout: Continue}
	if v := text(VarTimeout); v != "" {
		d, err := time.ParseDuration(v)
		switch {
		case err != nil:
			add(VarTimeout, "%q is no duration, such as 90s or 10m", v)
		case d < shortestTimeout || d > longestTimeout:
			add(VarTimeout, "%s is not between %s and %s", v, shortestTimeout, longestTimeout)
		}
		cfg.Timeout = d
	}
	if v := text(VarOnTimeout); v != "" {
		if cfg.OnTimeout = Action(v); cfg.OnTimeout != Continue && cfg.OnTimeout != Force {
			add(VarOnTimeout, "%q is neither %s nor %s", v, Continue, Force)
		}
	}
	if cfg.Cluster.Name = text(VarClusterName); cfg.Cluster.Name == "" {
		add(VarClusterName, "is missing; the API server knows us by it")
	}
	cfg.Cluster.Endpoint = text(VarClusterEndpoint)
	if at, err := url.Parse(cfg.Cluster.Endpoint); err != nil || at.Scheme != "https" || at.Host == "" || at.User != nil || at.RawQuery != "" || strings.Trim(at.Path, "/") != "" {
		add(VarClusterEndpoint, "%q is no URL such as https://0123.gr7.us-west-2.eks.amazonaws.com", cfg.Cluster.Endpoint)
	}
	ca, err := authority(text(VarClusterCA))
	if err != nil {
		add(VarClusterCA, "%w", err)
	}
	cfg.Cluster.CA = ca
	return cfg, errors.Join(errs...)
}

// authority reads certificates in base64.
func authority(text string) ([]byte, error) {
	if text == "" {
		return nil, errors.New(`is missing: "aws eks describe-cluster --query cluster.certificateAuthority.data"`)
	}
	pem, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("is not in base64: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return nil, errors.New("has no certificate in PEM")
	}
	return pem, nil
}
