// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lifecycle_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
)

// launchEvent is the example of the guide with IDs in it.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-event-reference.html#launch-lifecycle-action
const launchEvent = `{
  "version": "0",
  "id": "12345678-1234-1234-1234-123456789012",
  "detail-type": "EC2 Instance-launch Lifecycle Action",
  "source": "aws.autoscaling",
  "account": "123456789012",
  "time": "2026-11-22T10:11:12Z",
  "region": "us-west-2",
  "resources": ["arn:aws:autoscaling:us-west-2:123456789012:autoScalingGroup:u:autoScalingGroupName/my-asg"],
  "detail": {
    "LifecycleActionToken": "87654321-4321-4321-4321-210987654321",
    "AutoScalingGroupName": "my-asg",
    "LifecycleHookName": "my-lifecycle-hook",
    "EC2InstanceId": "i-1234567890abcdef0",
    "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING",
    "NotificationMetadata": "additional-info",
    "Origin": "EC2",
    "Destination": "AutoScalingGroup"
  }
}`

// scheduledEvent is the example of https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html.
const scheduledEvent = `{"version":"0","id":"53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa","detail-type":"Scheduled Event","source":"aws.events","account":"123456789012",
"time":"2026-11-22T10:11:12Z","region":"us-east-1","resources":["arn:aws:events:us-east-1:123456789012:rule/my-scheduled-rule"],"detail":{}}`

func terminateEvent() string {
	return strings.NewReplacer(
		"Instance-launch", "Instance-terminate", "LAUNCHING", "TERMINATING", `"Origin": "EC2"`, `"Origin": "AutoScalingGroup"`,
		`"Destination": "AutoScalingGroup"`, `"Destination": "WarmPool"`,
	).Replace(launchEvent)
}

func TestEventsAreRead(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 10, 11, 12, 0, time.UTC)
	action := lifecycle.Action{
		Transition: lifecycle.Launching, Instance: "i-1234567890abcdef0", Group: "my-asg", Hook: "my-lifecycle-hook",
		Token: "87654321-4321-4321-4321-210987654321", Origin: lifecycle.EC2, Destination: lifecycle.Group,
	}
	leaving := action
	leaving.Transition, leaving.Origin, leaving.Destination = lifecycle.Terminating, lifecycle.Group, lifecycle.WarmPool
	plain := action
	plain.Origin, plain.Destination = "", ""
	const id = "12345678-1234-1234-1234-123456789012"
	for name, tc := range map[string]struct {
		text string
		want lifecycle.Event
	}{
		"launch":               {launchEvent, lifecycle.Event{ID: id, Time: at, Action: &action}},
		"terminate":            {terminateEvent(), lifecycle.Event{ID: id, Time: at, Action: &leaving}},
		"without its way":      {replace(`"Origin": "EC2",`, "", `"Destination"`, `"Whatever"`), lifecycle.Event{ID: id, Time: at, Action: &plain}},
		"schedule":             {scheduledEvent, lifecycle.Event{ID: "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", Time: at}},
		"with fields to come":  {replace(`"version"`, `"more": {"a": [1]}, "version"`), lifecycle.Event{ID: id, Time: at, Action: &action}},
		"without its metadata": {replace(`"NotificationMetadata": "additional-info",`, ""), lifecycle.Event{ID: id, Time: at, Action: &action}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := lifecycle.Parse([]byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func replace(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(launchEvent) }

func TestWhatIsNoEventIsRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"nothing":              {"", "read event"},
		"no JSON":              {"hello", "read event: invalid character"},
		"a list":               {"[]", "cannot unmarshal array"},
		"an empty object":      {"{}", "no detail-type"},
		"null":                 {"null", "no detail-type"},
		"of SNS":               {`{"Records":[{"Sns":{"Message":"{}"}}]}`, "SNS or SQS"},
		"another detail-type":  {replace("EC2 Instance-launch Lifecycle Action", "EC2 Instance Launch Successful"), `"EC2 Instance Launch Successful" is not one of`},
		"another source":       {replace("aws.autoscaling", "my.app"), `source "my.app"`},
		"a forged schedule":    {strings.ReplaceAll(scheduledEvent, "aws.events", "my.app"), `source "my.app"`},
		"no detail":            {`{"detail-type":"EC2 Instance-launch Lifecycle Action","source":"aws.autoscaling"}`, "detail is missing"},
		"detail of text":       {`{"detail-type":"EC2 Instance-launch Lifecycle Action","source":"aws.autoscaling","detail":"x"}`, "detail: json"},
		"no token":             {replace("LifecycleActionToken", "X"), "detail.LifecycleActionToken is missing"},
		"no group":             {replace("AutoScalingGroupName", "X"), "detail.AutoScalingGroupName is missing"},
		"no hook":              {replace("LifecycleHookName", "X"), "detail.LifecycleHookName is missing"},
		"no instance":          {replace("EC2InstanceId", "X"), `EC2InstanceId: "" is no instance ID`},
		"a name of a node":     {replace("i-1234567890abcdef0", "ip-10-0-0-1"), "is no instance ID"},
		"the other transition": {replace("LAUNCHING", "TERMINATING"), "which the detail-type says"},
		"two things":           {replace("LifecycleActionToken", "X", "LifecycleHookName", "Y"), "LifecycleActionToken is missing\ndetail.LifecycleHookName is missing"},
		"no time":              {replace("2026-11-22T10:11:12Z", "yyyy-mm-ddThh:mm:ssZ"), "parsing time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := lifecycle.Parse([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %+v, %v; want an error with %q", got, err, tc.want)
			}
		})
	}
}

// FuzzParse: what is accepted has all that an answer needs, and says the same when it is written again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{launchEvent, terminateEvent(), scheduledEvent, "{}", "null", `{"Records":[]}`, replace("i-1", "j-1"), `{"detail-type":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := lifecycle.Parse(text)
		if err != nil {
			if e != (lifecycle.Event{}) {
				t.Errorf("an error and %+v", e)
			}
			return
		}
		a := e.Action
		if a == nil {
			return
		}
		if a.Token == "" || a.Group == "" || a.Hook == "" || !strings.HasPrefix(string(a.Instance), "i-") {
			t.Errorf("accepted %+v", a)
		}
		kind := "EC2 Instance-launch Lifecycle Action"
		if a.Transition == lifecycle.Terminating {
			kind = "EC2 Instance-terminate Lifecycle Action"
		}
		again, err := json.Marshal(map[string]any{"id": e.ID, "time": e.Time, "source": "aws.autoscaling", "detail-type": kind, "detail": map[string]any{
			"LifecycleActionToken": a.Token, "AutoScalingGroupName": a.Group, "LifecycleHookName": a.Hook, "EC2InstanceId": a.Instance,
			"LifecycleTransition": a.Transition, "Origin": a.Origin, "Destination": a.Destination,
		}})
		if err != nil {
			return // a year that JSON has no words for
		}
		if same, err := lifecycle.Parse(again); err != nil || *same.Action != *a || !same.Time.Equal(e.Time) {
			t.Errorf("written again: %+v, %v; was %+v", same, err, e)
		}
	})
}
