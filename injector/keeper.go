// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/certs"
	"github.com/multus-vpc/multus-vpc/internal/kubeinject"
	"github.com/multus-vpc/multus-vpc/internal/webhook"
)

// keeper keeps the webhook's certificate in order: our own, or somebody else's in a folder.
type keeper interface {
	Run(ctx context.Context)
	Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Ready() error
	Expires() time.Time
	Failures() uint64
}

func newKeeper(o options, client *kubeinject.Client, log *slog.Logger) keeper {
	if o.certDir != "" {
		return webhook.OpenFiles(o.certDir, o.certs.Interval, log)
	}
	return certs.New(o.certs, store{client.Secret(o.namespace, o.secret)}, trust{client.Configuration(o.configuration)}, log)
}

// store and trust put the API's conflicts into the words of the flow.
type store struct{ kubeinject.Secret }

func (s store) Save(ctx context.Context, data map[string][]byte, version string) error {
	return conflict(s.Secret.Save(ctx, data, version))
}

type trust struct{ kubeinject.Configuration }

func (t trust) Publish(ctx context.Context, bundle []byte, version string) error {
	return conflict(t.Configuration.Publish(ctx, bundle, version))
}

func conflict(err error) error {
	if errors.Is(err, kubeinject.ErrConflict) {
		return fmt.Errorf("%w: %w", certs.ErrConflict, err)
	}
	return err
}
