// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package lifecycle has the words of Auto Scaling's lifecycle hooks: what an event says, and how it is answered. The function that handles
// hooks reads its events with it, package workerhook carries them out, package asghooks answers them.
//
// It promises that an action which [Parse] accepts has all that an answer needs, so that nobody answers for another instance. What
// follows from an event does not belong here.
//
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-event-reference.html
package lifecycle

import (
	"errors"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Transition is what a hook interrupts.
type Transition string

// The transitions that have hooks.
const (
	Launching   Transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
	Terminating Transition = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// Result is how a hook is answered.
type Result string

// The results that Auto Scaling knows. A launching instance goes into service by the one and is terminated by the other. A terminating one
// ends by either, but a group may be set up to retain those that were abandoned.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/completing-lifecycle-hooks.html
const (
	Continue Result = "CONTINUE"
	Abandon  Result = "ABANDON"
)

// Place is where an instance comes from or goes to. Events of old groups may lack it.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/warm-pools-eventbridge-events.html
type Place string

// The places of Auto Scaling's events.
const (
	EC2      Place = "EC2"
	Group    Place = "AutoScalingGroup"
	WarmPool Place = "WarmPool"
)

// Action is one hook that holds one instance.
type Action struct {
	Transition Transition
	Instance   eni.InstanceID
	Group      string // Auto Scaling group
	Hook       string
	// Token names this wait and no other: an instance of a warm pool passes the same hook more than once.
	Token               string
	Origin, Destination Place
}

// Event is what invokes the function.
type Event struct {
	ID   string    // of the event, the same in each of its deliveries
	Time time.Time // in whole seconds
	// Action is nil for the turn of a schedule.
	Action *Action
}

var (
	// ErrNotWaiting is an action that waits no longer: it was answered, its time was over, or its group is gone.
	ErrNotWaiting = errors.New("no lifecycle action waits for it")
	// ErrNotTaken is a call that had no effect and may have one the next time, as one that was throttled.
	ErrNotTaken = errors.New("not taken by Auto Scaling")
	// ErrRefused is a call that Auto Scaling will refuse however often it is made.
	ErrRefused = errors.New("refused by Auto Scaling")
)
