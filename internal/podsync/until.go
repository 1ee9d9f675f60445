// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Promise is what a pod is to have before its containers start: the interfaces that its networks annotation names.
type Promise []string

// maxMissing is how much of what is missing is listed: Kubernetes keeps 4096 bytes of a termination message.
const maxMissing = 8

// Kept reports whether the VPC routes to every address of every promised interface, and an error when it never will. Before
// that, it says what is missing.
func (p Promise) Kept(r Report) (missing string, err error) {
	var waits []string
	for _, name := range p {
		at := slices.IndexFunc(r.Interfaces, func(i InterfaceReport) bool { return i.Name == name })
		has := slices.ContainsFunc(r.Addresses, func(a AddressReport) bool { return a.Interface == name && a.State != Leaving })
		switch {
		case at < 0:
			waits = append(waits, fmt.Sprintf("interface %s has not appeared", name))
		case r.Interfaces[at].Useless:
			return "", fmt.Errorf("interface %s: %w: %s", name, ErrRefused, r.Interfaces[at].Ignored)
		case !has && r.Interfaces[at].Ignored == "":
			waits = append(waits, fmt.Sprintf("interface %s has no address", name))
		}
	}
	for _, a := range r.Addresses {
		switch {
		case a.State == Registered || a.State == Leaving:
		case a.State == Contested && a.Floating: // another pod has it, which is what it is for
		case a.State == Contested:
			return "", &brokenError{a, ErrContested}
		case a.Refused:
			return "", &brokenError{a, ErrRefused}
		case a.Error != "":
			waits = append(waits, fmt.Sprintf("address %s on %s: %s", a.Addr, a.Interface, a.Error))
		default:
			waits = append(waits, fmt.Sprintf("address %s on %s is not registered yet", a.Addr, a.Interface))
		}
	}
	if more := len(waits) - maxMissing; more > 0 {
		waits = append(waits[:maxMissing], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(waits, "; "), nil
}

// brokenError is a promise that cannot be kept because of one address.
type brokenError struct {
	AddressReport
	kind error
}

func (e *brokenError) Error() string {
	return fmt.Sprintf("address %s on %s: %s", e.Addr, e.Interface, e.AddressReport.Error)
}

func (e *brokenError) Unwrap() error { return e.kind }

// Until runs the syncer until the promise is kept. When ctx ends before, or the promise cannot be kept, the error says what was
// missing. Calls that are under way have ended when it returns.
func (s *Syncer) Until(ctx context.Context, p Promise) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	missing := "the pod's interfaces have not been read"
	for {
		select {
		case err := <-ended:
			if err == nil {
				err = fmt.Errorf("%w: %s", context.Cause(ctx), missing)
			}
			return err
		case <-s.stepped:
		}
		if !s.Seen() {
			continue
		}
		var err error
		missing, err = p.Kept(s.Report())
		if err != nil || missing == "" {
			cancel()
			return errors.Join(err, <-ended)
		}
	}
}
