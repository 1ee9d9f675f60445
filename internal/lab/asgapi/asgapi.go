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
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
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
		id := requestID()
		if err := r.ParseForm(); err != nil {
			WriteError(w, "MalformedQueryString", "The query string contains a syntax error.", id)
			return
		}
		c := &call{service: service, cloud: cloud, now: now(), in: &parameters{form: r.Form, used: map[string]bool{}}}
		name := r.Form.Get("Action")
		out, err := c.serve(table, name, r.Form)
		if err != nil {
			writeFailure(w, err, id)
			return
		}
		writeResult(w, name, out, id)
	})
}

// call is one request.
type call struct {
	service *autoscaling.Service
	cloud   *vpc.Cloud
	now     time.Time
	in      *parameters
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

// failure is an error on the wire.
type failure struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	XMLNS     string   `xml:"xmlns,attr"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

func writeFailure(w http.ResponseWriter, err error, id string) {
	if e, ok := errors.AsType[*autoscaling.Error](err); ok {
		WriteError(w, e.Code, e.Message, id)
		return
	}
	WriteError(w, "InternalFailure", err.Error(), id)
}

// WriteError answers a request with an error in Auto Scaling's form, for what stands in front of the API.
func WriteError(w http.ResponseWriter, code, message, requestID string) {
	out := failure{XMLNS: namespace, Type: "Sender", Code: code, Message: message, RequestID: requestID}
	status := statusOf(code)
	if status >= http.StatusInternalServerError {
		out.Type = "Receiver"
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(out) // a client that left is no concern of the API
}

// statusOf is the HTTP status of an error code.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html
func statusOf(code string) int {
	switch code {
	case "InternalFailure", "InternalError":
		return http.StatusInternalServerError
	case "ServiceUnavailable", "Unavailable":
		return http.StatusServiceUnavailable
	case "AccessDenied":
		return http.StatusForbidden
	}
	return http.StatusBadRequest
}

// writeResult answers with NameResponse, which holds NameResult and the request's ID.
func writeResult(w http.ResponseWriter, name string, result any, id string) {
	if result == nil {
		result = struct{}{}
	}
	var metadata struct {
		RequestID string `xml:"RequestId"`
	}
	metadata.RequestID = id
	element := func(local string) xml.StartElement { return xml.StartElement{Name: xml.Name{Local: local}} }
	root := element(name + "Response")
	root.Attr = []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: namespace}}
	w.Header().Set("Content-Type", "text/xml")
	encoder := xml.NewEncoder(w)
	_ = errors.Join( // as above
		encoder.EncodeToken(root),
		encoder.EncodeElement(result, element(name+"Result")),
		encoder.EncodeElement(metadata, element("ResponseMetadata")),
		encoder.EncodeToken(root.End()),
		encoder.Flush(),
	)
}

func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
