// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// What EventBridge calls the events.
const (
	detailLaunch    = "EC2 Instance-launch Lifecycle Action"
	detailTerminate = "EC2 Instance-terminate Lifecycle Action"
	detailSchedule  = "Scheduled Event" // https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html

	sourceScaling  = "aws.autoscaling"
	sourceSchedule = "aws.events"
)

// envelope is an event as EventBridge delivers it. Fields that are not here are passed over: AWS adds some.
type envelope struct {
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Time       time.Time       `json:"time"`
	Detail     json.RawMessage `json:"detail"`

	Records json.RawMessage `json:"Records"` // SNS and SQS
}

type detail struct {
	Token       string         `json:"LifecycleActionToken"`
	Group       string         `json:"AutoScalingGroupName"`
	Hook        string         `json:"LifecycleHookName"`
	Instance    eni.InstanceID `json:"EC2InstanceId"`
	Transition  Transition     `json:"LifecycleTransition"`
	Origin      Place          `json:"Origin"`
	Destination Place          `json:"Destination"`
}

var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,}$`)

// Parse reads an event. The error says what was wrong with it: no such event is handled by trying again.
func Parse(event []byte) (Event, error) {
	var e envelope
	if err := json.Unmarshal(event, &e); err != nil {
		return Event{}, fmt.Errorf("read event: %w", err)
	}
	if e.DetailType == "" && e.Records != nil {
		return Event{}, errors.New("read event: it comes from SNS or SQS, want a rule of EventBridge that invokes the function itself")
	}
	out := Event{ID: e.ID, Time: e.Time}
	want, source := Transition(""), sourceScaling
	switch e.DetailType {
	case detailLaunch:
		want = Launching
	case detailTerminate:
		want = Terminating
	case detailSchedule:
		source = sourceSchedule
	case "":
		return Event{}, errors.New("read event: it has no detail-type, want an event of EventBridge")
	default:
		return Event{}, fmt.Errorf("read event: detail-type %q is not one of %q, %q, %q", e.DetailType, detailLaunch, detailTerminate, detailSchedule)
	}
	if e.Source != source {
		return Event{}, fmt.Errorf("read event: source %q of a %q is not %q", e.Source, e.DetailType, source)
	}
	if want == "" {
		return out, nil
	}
	action, err := parseAction(e.Detail, want)
	if err != nil {
		return Event{}, fmt.Errorf("read event %s: %w", e.ID, err)
	}
	out.Action = &action
	return out, nil
}

// parseAction reports all that is wrong at once.
func parseAction(text json.RawMessage, want Transition) (Action, error) {
	if len(text) == 0 {
		return Action{}, errors.New("detail is missing")
	}
	var d detail
	if err := json.Unmarshal(text, &d); err != nil {
		return Action{}, fmt.Errorf("detail: %w", err)
	}
	var errs []error
	for _, f := range []struct{ name, value string }{
		{"LifecycleActionToken", d.Token}, {"AutoScalingGroupName", d.Group}, {"LifecycleHookName", d.Hook},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("detail.%s is missing", f.name))
		}
	}
	if !instanceID.MatchString(string(d.Instance)) {
		errs = append(errs, fmt.Errorf("detail.EC2InstanceId: %q is no instance ID", d.Instance))
	}
	if d.Transition != want {
		errs = append(errs, fmt.Errorf("detail.LifecycleTransition: %q is not %q, which the detail-type says", d.Transition, want))
	}
	if err := errors.Join(errs...); err != nil {
		return Action{}, err
	}
	return Action{
		Transition: d.Transition, Instance: d.Instance, Group: d.Group, Hook: d.Hook, Token: d.Token, Origin: d.Origin, Destination: d.Destination,
	}, nil
}
