// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// startupTaint is what a node may be registered with, so that no pod lands on it before the agent serves it. Who registers it decides; the agent
// only takes it off.
const startupTaint = "multus-vpc.io/agent-not-ready"

// welcome takes the startup taint off the node once pods can be served on every ENI that the worker is to have.
func (w *worker) welcome(ctx context.Context, log *slog.Logger) {
	if !w.settled(ctx) || w.unveil == nil {
		return
	}
	const pauseCap = 5 * time.Minute
	told := ""
	for pause := time.Second; ; pause = min(2*pause, pauseCap) {
		had, err := w.unveil(ctx)
		if err == nil {
			if had {
				log.Info("startup taint removed, pods may come", "taint", startupTaint)
			}
			return
		}
		if ctx.Err() == nil && err.Error() != told { // a cluster may do without the taint, and without the permission
			log.Warn("if the node has the startup taint, it stays", "taint", startupTaint, "error", err)
			told = err.Error()
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return
		}
	}
}
