// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package query is the AWS query protocol as Auto Scaling and CloudFormation speak it, on the server's side: parameters out
// of a form, results and errors as XML. The lab's endpoints for the two use it; EC2's own dialect is package ec2api's. It
// promises that a parameter which nobody reads is refused. What the services do does not belong here.
//
// https://smithy.io/2.0/aws/protocols/aws-query-protocol.html
package query

import (
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
)

// Error is what an endpoint answers to a call that it refuses.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// List is a list as the protocol writes it.
type List[T any] struct {
	Items []T `xml:"member"`
}

// ListOf makes a list out of the lab's words.
func ListOf[A, B any](in []A, f func(A) B) (out List[B]) {
	for _, a := range in {
		out.Items = append(out.Items, f(a))
	}
	return out
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

// WriteError answers a request with an error.
func WriteError(w http.ResponseWriter, namespace, code, message, requestID string) {
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
	case "ChangeSetNotFound": // https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeChangeSet.html
		return http.StatusNotFound
	}
	return http.StatusBadRequest
}

// WriteResult answers with NameResponse, which holds NameResult and the request's ID. A nil result is empty.
func WriteResult(w http.ResponseWriter, namespace, name string, result any, requestID string) {
	if result == nil {
		result = struct{}{}
	}
	var metadata struct {
		RequestID string `xml:"RequestId"`
	}
	metadata.RequestID = requestID
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

// RequestID makes the ID of a request.
func RequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
