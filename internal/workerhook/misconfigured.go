// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// Misconfigured is the [Workers] of a configuration that says nothing that could be done: no worker can launch, with the reasons, and
// nothing is taken or swept.
type Misconfigured struct{ Err error }

// Launch returns an [*workereni.ImpossibleError].
func (m Misconfigured) Launch(context.Context, workereni.Request) ([]eni.Device, error) {
	return nil, &workereni.ImpossibleError{Reasons: strings.Split(m.Err.Error(), "\n"), Err: m.Err}
}

// Terminate fails.
func (m Misconfigured) Terminate(_ context.Context, worker eni.InstanceID) error {
	return fmt.Errorf("take the ENIs of %s: %w", worker, m.Err)
}

// Sweep fails.
func (m Misconfigured) Sweep(context.Context, time.Duration) ([]workereni.Orphan, error) {
	return nil, fmt.Errorf("sweep: %w", m.Err)
}
