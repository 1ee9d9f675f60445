// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Certificate chooses what to show to a caller, as [tls.Config.GetCertificate].
type Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// slowClient bounds what a caller may take; the longest timeout of a webhook configuration is 30 s.
const slowClient = 30 * time.Second

// Serve answers on the listener until ctx ends. Then it goes on for the time of linger, for until then API servers may not know
// that this replica goes, and ends after the calls that are under way.
func Serve(ctx context.Context, ln net.Listener, certificate Certificate, handler http.Handler, linger time.Duration, log *slog.Logger) error {
	server := &http.Server{
		Handler:   handler,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate},
		// A handshake that fails is told to the log by the server itself, and is the only trace of a caBundle that is wrong.
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: slowClient, ReadTimeout: slowClient, WriteTimeout: slowClient, IdleTimeout: 3 * slowClient,
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(ln, "", "") }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the webhook: %w", err)
	case <-ctx.Done():
	}
	log.Info("leaving", "linger", linger)
	rest := time.NewTimer(linger)
	defer rest.Stop()
	select {
	case err := <-served:
		return fmt.Errorf("serve the webhook: %w", err)
	case <-rest.C:
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), slowClient)
	defer cancel()
	err := server.Shutdown(ending)
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
