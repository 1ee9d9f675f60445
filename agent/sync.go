// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"fmt"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// syncConfig is the file's sync.
type syncConfig struct {
	// Ranges that pods may claim addresses of. Default: the ENI's subnet without what vpcipam gives out.
	Ranges []string `json:"ranges,omitempty"`
	// Floating ranges, whose addresses are taken from whatever ENI has them. Default none.
	Floating []string `json:"floating,omitempty"`
	// OnConflict is wait-then-reassign or never, for all other addresses. Default wait-then-reassign.
	OnConflict *string `json:"onConflict,omitempty"`
}

// overlaySync takes over what the file says of claims.
func (o *options) overlaySync(s syncConfig, wrong func(key string, err error)) {
	o.guard.Ranges = parseRanges("sync.ranges", s.Ranges, wrong)
	o.guard.Floating = parseRanges("sync.floating", s.Floating, wrong)
	if s.OnConflict == nil {
		return
	}
	o.guard.OnConflict = attachment.OnConflict(*s.OnConflict)
	if o.guard.OnConflict != attachment.WaitThenReassign && o.guard.OnConflict != attachment.Never {
		wrong("sync.onConflict", fmt.Errorf("%q is not wait-then-reassign or never; what is to move at once belongs in sync.floating", *s.OnConflict))
	}
}

func parseRanges(key string, texts []string, wrong func(key string, err error)) (rs []attachment.Range) {
	for i, text := range texts {
		r, err := attachment.ParseRange(text)
		if err != nil {
			wrong(fmt.Sprintf("%s[%d]", key, i), err)
			continue
		}
		rs = append(rs, r)
	}
	return rs
}
