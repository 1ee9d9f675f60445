// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package events is the lab's EventBridge: one bus, rules with event patterns or schedules, and their targets.
//
// Auto Scaling puts its lifecycle actions on the bus, and rules hand them to functions. It promises what EventBridge
// does, and no more: each event reaches each matching target at least once. Duplicates and reordering come on demand, so
// that a target that relies on less is found out. Patterns are read strictly: a filter that the lab does not implement is
// an error, never ignored. The wire protocol of EventBridge does not belong here; stacks and tests make rules in Go.
//
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-what-is.html
package events

import (
	"encoding/json"
	"time"
)

// Event is what rules match and targets get.
// https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html
type Event struct {
	Version    string          `json:"version"`
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account"`
	Time       time.Time       `json:"time"` // in whole seconds
	Region     string          `json:"region"`
	Resources  []string        `json:"resources"`
	Detail     json.RawMessage `json:"detail"`
}

// JSON is the event as a target gets it.
func (e Event) JSON() ([]byte, error) {
	e.Version = "0"
	e.Time = e.Time.UTC().Truncate(time.Second)
	if e.Resources == nil {
		e.Resources = []string{}
	}
	if e.Detail == nil {
		e.Detail = json.RawMessage("{}")
	}
	return json.Marshal(e)
}
