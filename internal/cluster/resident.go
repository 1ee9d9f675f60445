// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cluster

import (
	"errors"
	"fmt"
	"time"
)

// Home is a node as who empties it sees it.
type Home struct {
	Name          string
	Version       string    // of its object, by which a change is of what was read
	Unschedulable bool      // no new pods are placed on it
	Cordoned      time.Time // when what we made it unschedulable for happened; zero when it was not us
}

// Resident is a pod as who empties its node sees it.
type Resident struct {
	Namespace, Name, UID string

	DaemonSet bool          // a DaemonSet keeps it, which would make it again on the same node
	Mirror    bool          // it shows a pod that the kubelet runs from a file, and cannot be ended through the API
	Ended     bool          // it succeeded or failed
	Grace     time.Duration // how long it may take to end
	Leaves    time.Time     // when its grace is over; zero until it is to end
}

func (r Resident) String() string { return r.Namespace + "/" + r.Name }

// What the API says to who empties a node.
var (
	// ErrGone is an object that is not there any more, or is another one of the same name.
	ErrGone = errors.New("gone")
	// ErrDenied is a caller whom the API does not know, or does not let do this.
	ErrDenied = errors.New("the Kubernetes API denies access")
)

// RefusedError is a pod that may not be evicted now.
type RefusedError struct {
	Why   string        // in the API's words, with the PodDisruptionBudget's name
	After time.Duration // when to ask again; zero where the API does not say
}

func (e *RefusedError) Error() string { return fmt.Sprintf("eviction is refused: %s", e.Why) }
