// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package ec2api is EC2's query API over the laboratory's VPC: what an unmodified AWS SDK, AWS CLI or boto3 speaks to.
//
// vpclab serves it, and tests mount it as a transport without a network. It promises to know what it does not know: an
// action, parameter or filter that is not implemented is refused with EC2's own error, never ignored. The rules of EC2 are
// in [vpc]; here are the wire format, filters and pagination. Weather (latency, throttling, faults) does not belong here.
//
// Protocol: https://docs.aws.amazon.com/ec2/latest/devguide/ec2-query-api.html
package ec2api

import (
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Version is the only version of the API that clients use.
const Version = "2016-11-15"

const namespace = "http://ec2.amazonaws.com/doc/" + Version + "/"

// Handler serves cloud's EC2 API. The time of each call is what now returns. Signatures are not verified, and a request
// without one is served too.
func Handler(cloud *vpc.Cloud, now func() time.Time) http.Handler {
	table := actions()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := requestID()
		if err := r.ParseForm(); err != nil {
			writeError(w, id, vpc.Errorf("MalformedQueryString", "The query string contains a syntax error."))
			return
		}
		name := r.Form.Get("Action")
		c := &call{cloud: cloud, now: now(), requestID: id}
		out, err := c.serve(table, name, r.Form)
		if err != nil {
			writeError(w, id, err)
			return
		}
		writeXML(w, http.StatusOK, out, name+"Response")
	})
}

// call is one request.
type call struct {
	cloud     *vpc.Cloud
	now       time.Time
	requestID string
}

func (c *call) serve(table map[string]action, name string, form url.Values) (any, error) {
	if name == "" {
		return nil, vpc.Errorf("MissingParameter", "The request must contain the parameter Action")
	}
	if v := form.Get("Version"); v != Version {
		return nil, vpc.Errorf("NoSuchVersion", "The requested version (%s) of service AmazonEC2 does not exist", v)
	}
	run, ok := table[name]
	if !ok {
		return nil, vpc.Errorf("InvalidAction", "The action %s is not valid for this web service.", name)
	}
	out, err := run(c, form)
	if err != nil {
		return nil, err
	}
	out.stamp(c.requestID)
	return out, nil
}

// view is the account as Describe calls see it now.
func (c *call) view() vpc.View { return c.cloud.View(c.now.Add(-c.cloud.Lags().Describe)) }

// Caller returns who made a request: the access key ID of its SigV4 credential, or "anonymous".
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-authentication-methods.html
func Caller(r *http.Request) string {
	credential := r.URL.Query().Get("X-Amz-Credential")
	if _, rest, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		credential = rest
	}
	if key, _, ok := strings.Cut(credential, "/"); ok && key != "" {
		return key
	}
	return "anonymous"
}

// reply is what every answer has.
type reply struct {
	XMLNS     string `xml:"xmlns,attr"`
	RequestID string `xml:"requestId"`
}

func (r *reply) stamp(id string) { r.XMLNS, r.RequestID = namespace, id }

// answer is a pointer to a struct that embeds [reply].
type answer interface{ stamp(requestID string) }

// done is the answer of calls that return nothing else.
// The SDKs do not read it; the API reference shows it for each of those calls.
type done struct {
	reply
	Return bool `xml:"return"`
}

func ok() *done { return &done{Return: true} }

// set is a list as EC2 writes it: its element is there though it be empty.
type set[T any] struct {
	Items []T `xml:"item"`
}

// setOf makes a set out of the lab's words.
func setOf[A, B any](list []A, f func(A) B) set[B] {
	out := set[B]{Items: make([]B, len(list))}
	for i, a := range list {
		out.Items[i] = f(a)
	}
	return out
}

func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

type errorResponse struct {
	XMLName   xml.Name `xml:"Response"`
	Code      string   `xml:"Errors>Error>Code"`
	Message   string   `xml:"Errors>Error>Message"`
	RequestID string   `xml:"RequestID"`
}

// WriteError answers a request with an error in EC2's form, for what stands in front of the API.
func WriteError(w http.ResponseWriter, err *vpc.APIError) { writeError(w, requestID(), err) }

func writeError(w http.ResponseWriter, id string, err error) {
	var e *vpc.APIError
	if !errors.As(err, &e) {
		e = &vpc.APIError{Code: "InternalError", Message: err.Error(), Status: http.StatusInternalServerError}
	}
	writeXML(w, e.HTTPStatus(), errorResponse{Code: e.Code, Message: e.Message, RequestID: id}, "Response")
}

func writeXML(w http.ResponseWriter, status int, v any, root string) {
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(xml.Header)) // a client that left is no concern of the API
	_ = xml.NewEncoder(w).EncodeElement(v, xml.StartElement{Name: xml.Name{Local: root}})
}
