// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package front

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
)

// reply is a whole answer, held back until its time has come. It is the [http.ResponseWriter] that the API writes to.
type reply struct {
	status int
	header http.Header
	body   bytes.Buffer
	code   string // the EC2 error code, of errors that front makes
}

func newReply() *reply { return &reply{header: make(http.Header)} }

func (a *reply) Header() http.Header { return a.header }

func (a *reply) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *reply) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

func (a *reply) writeTo(w http.ResponseWriter) {
	a.WriteHeader(http.StatusOK)
	maps.Copy(w.Header(), a.header)
	w.Header().Set("Content-Length", strconv.Itoa(a.body.Len()))
	w.WriteHeader(a.status)
	_, _ = a.body.WriteTo(w) // the client is gone: nobody is left to tell
}

func (a *reply) response(req *http.Request) *http.Response {
	a.WriteHeader(http.StatusOK)
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)),
		StatusCode:    a.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        a.header,
		Body:          io.NopCloser(bytes.NewReader(a.body.Bytes())),
		ContentLength: int64(a.body.Len()),
		Request:       req,
	}
}

// result is what the call log shows of the reply.
func (a *reply) result() string {
	if a.code != "" {
		return a.code
	}
	if a.status < http.StatusBadRequest {
		return resultOK
	}
	var doc struct { // what EC2's errors and those of the other query APIs are called
		EC2   string `xml:"Errors>Error>Code"`
		Other string `xml:"Error>Code"`
	}
	if err := xml.Unmarshal(a.body.Bytes(), &doc); err == nil && doc.EC2+doc.Other != "" {
		return doc.EC2 + doc.Other
	}
	return strconv.Itoa(a.status)
}

// errorDocument is an error of the EC2 query API.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-query-api.html
type errorDocument struct {
	XMLName   xml.Name `xml:"Response"`
	Code      string   `xml:"Errors>Error>Code"`
	Message   string   `xml:"Errors>Error>Message"`
	RequestID string   `xml:"RequestID"`
}

const codeThrottled = "RequestLimitExceeded"

// writeError answers with an error in the form of the EC2 query API.
func writeError(w http.ResponseWriter, code, message, requestID string) {
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.WriteHeader(statusOf(code))
	_, _ = io.WriteString(w, xml.Header) // w is a reply, which takes all; and strings always encode
	_ = xml.NewEncoder(w).Encode(errorDocument{Code: code, Message: message, RequestID: requestID})
}

// statusOf is the HTTP status that EC2 answers an error code with.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-error-codes.html, "Server error codes" and "Common errors"
func statusOf(code string) int {
	switch code {
	case "InternalError", "InternalFailure":
		return http.StatusInternalServerError
	case codeThrottled, "Unavailable", "ServiceUnavailable", "InsufficientCapacity", "InsufficientInstanceCapacity":
		return http.StatusServiceUnavailable
	case "UnauthorizedOperation":
		return http.StatusForbidden
	case "AuthFailure":
		return http.StatusUnauthorized
	case "DryRunOperation":
		return http.StatusPreconditionFailed
	}
	return http.StatusBadRequest
}

func messageOf(code string) string {
	switch code {
	case codeThrottled:
		return "Request limit exceeded."
	case "Throttling", "ThrottlingException":
		return "Rate exceeded"
	case "InternalError", "InternalFailure":
		return "An internal error has occurred"
	case "Unavailable", "ServiceUnavailable":
		return "The service is unavailable. Please try again shortly."
	case "UnauthorizedOperation":
		return "You are not authorized to perform this operation."
	}
	return "A fault of the lab."
}

// requestID has the form of EC2's, and counts: replies of two runs with one seed are the same bytes.
func requestID(serial uint64) string {
	return fmt.Sprintf("00000000-0000-4000-8000-%012x", serial)
}
