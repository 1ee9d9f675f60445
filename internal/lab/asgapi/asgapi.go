// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package asgapi is EC2 Auto Scaling's query API over the laboratory's groups: what an unmodified AWS SDK or AWS CLI
// speaks to.
//
// vpclab serves it, and tests mount it as a transport without a network. It promises to know what it does not know: an
// action or parameter that is not implemented is refused, never ignored. The rules are in [autoscaling]; here is the wire
// format. Weather (latency, throttling, faults) does not belong here.
//
// Protocol: https://docs.aws.amazon.com/autoscaling/ec2/APIReference/Welcome.html
package asgapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/query"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Version is the only version of the API that clients use.
const Version = "2011-01-01"

const namespace = "http://autoscaling.amazonaws.com/doc/" + Version + "/"

// Actions lists what the API does.
func Actions() []string {
	var out []string
	for name := range actions() {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Handler serves the API. Cloud is where the groups' instances are; the time of each call is what now returns.
// Signatures are not verified, and a request without one is served too.
func Handler(service *autoscaling.Service, cloud *vpc.Cloud, now func() time.Time) http.Handler {
	table := actions()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := query.RequestID()
		if err := r.ParseForm(); err != nil {
			WriteError(w, "MalformedQueryString", "The query string contains a syntax error.", id)
			return
		}
		c := &call{service: service, cloud: cloud, now: now(), in: query.NewParameters(r.Form)}
		name := r.Form.Get("Action")
		out, err := c.serve(table, name, r.Form)
		if err != nil {
			writeFailure(w, err, id)
			return
		}
		query.WriteResult(w, namespace, name, out, id)
	})
}

// call is one request.
type call struct {
	service *autoscaling.Service
	cloud   *vpc.Cloud
	now     time.Time
	in      *query.Parameters
}

// action reads the request's parameters, all of them, and then does what it says. A nil result is an empty answer.
type action func(c *call) (result any, err error)

func (c *call) serve(table map[string]action, name string, form url.Values) (any, error) {
	if name == "" {
		return nil, &autoscaling.Error{Code: "MissingAction", Message: "The request must contain the parameter Action"}
	}
	run, ok := table[name]
	if v := form.Get("Version"); !ok || v != Version {
		return nil, &autoscaling.Error{Code: "InvalidAction", Message: fmt.Sprintf("Could not find operation %s for version %s", name, v)}
	}
	return run(c)
}

func writeFailure(w http.ResponseWriter, err error, id string) {
	if e, ok := errors.AsType[*autoscaling.Error](err); ok {
		WriteError(w, e.Code, e.Message, id)
		return
	}
	if e, ok := errors.AsType[*query.Error](err); ok {
		WriteError(w, e.Code, e.Message, id)
		return
	}
	WriteError(w, "InternalFailure", err.Error(), id)
}

// WriteError answers a request with an error in Auto Scaling's form, for what stands in front of the API.
func WriteError(w http.ResponseWriter, code, message, requestID string) {
	query.WriteError(w, namespace, code, message, requestID)
}
