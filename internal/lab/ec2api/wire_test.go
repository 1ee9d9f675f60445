// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api_test

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/ec2api"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// post sends a form as any client does and returns the status and the body.
func (l *lab) post(form string) (status int, body string) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	w := httptest.NewRecorder()
	l.handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestRequestsThatNoSDKSendsAreRefused(t *testing.T) {
	l := newLab(t, vpc.Config{})
	assign := "Action=AssignPrivateIpAddresses&Version=2016-11-15&NetworkInterfaceId=" + l.enis[0].ID
	for _, c := range []struct{ name, form, code, message string }{
		{"no action", "Version=2016-11-15", "MissingParameter", "The request must contain the parameter Action"},
		{"old version", "Action=DescribeVpcs&Version=2006-01-01", "NoSuchVersion", "The requested version (2006-01-01) of service AmazonEC2 does not exist"},
		{"unknown action", "Action=Fly&Version=2016-11-15", "InvalidAction", "The action Fly is not valid for this web service."},
		{"missing parameter", "Action=AttachNetworkInterface&Version=2016-11-15", "MissingParameter", "The request must contain the parameter NetworkInterfaceId"},
		{"nothing to assign", assign, "MissingParameter", "The request must contain the parameter privateIpAddress"},
		{"unknown parameter", assign + "&PrivateIpAddress.1=10.10.1.70&Colour=red", "UnknownParameter", "The parameter Colour is not recognized"},
		{"unknown member", assign + "&PrivateIpAddress.1=10.10.1.70&PrivateIpAddress.2.Colour=red", "UnknownParameter", "The parameter PrivateIpAddress.2.Colour is not recognized"},
		{"no dry run there", assign + "&PrivateIpAddress.1=10.10.1.70&DryRun=true", "UnknownParameter", "The parameter DryRun is not recognized"},
		{"list without number", assign + "&PrivateIpAddress.first=10.10.1.70", "UnknownParameter", "The parameter PrivateIpAddress.first is not recognized"},
		{"list as a scalar", assign + "&PrivateIpAddress=10.10.1.70", "UnknownParameter", "The parameter PrivateIpAddress is not recognized"},
		{"scalar as a list", assign + "&AllowReassignment.1=true", "UnknownParameter", "The parameter AllowReassignment.1 is not recognized"},
		{"twice", assign + "&AllowReassignment=true&AllowReassignment=false", "InvalidParameterCombination", "The parameter AllowReassignment may only be specified once"},
		{"no number", assign + "&SecondaryPrivateIpAddressCount=two", "InvalidParameterValue", "Invalid value 'two' for parameter SecondaryPrivateIpAddressCount"},
		{"no boolean", assign + "&AllowReassignment=1&PrivateIpAddress.1=10.10.1.70", "InvalidParameterValue", "Invalid value '1' for parameter AllowReassignment"},
		{"count of zero", assign + "&SecondaryPrivateIpAddressCount=0", "InvalidParameterValue", "Invalid value '0' for a count. Must be positive"},
		{"no CIDR", assign + "&Ipv4Prefix.1=10.10.1.64", "InvalidParameterValue", "Value (10.10.1.64) for parameter cidrBlock is invalid. This is not a valid CIDR block."},
		{"filter without values", "Action=DescribeVpcs&Version=2016-11-15&Filter.1.Name=vpc-id", "InvalidParameterValue", "The filter 'vpc-id' must have at least one value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := l.post(c.form)
			var e struct {
				Code      string `xml:"Errors>Error>Code"`
				Message   string `xml:"Errors>Error>Message"`
				RequestID string `xml:"RequestID"`
			}
			if err := xml.Unmarshal([]byte(body), &e); err != nil {
				t.Fatal(err)
			}
			if status != http.StatusBadRequest || e.Code != c.code || e.Message != c.message || len(e.RequestID) != 36 {
				t.Errorf("got  %d %s: %s\nwant 400 %s: %s", status, e.Code, e.Message, c.code, c.message)
			}
		})
	}
}

func TestListsHaveTheirOrderByNumber(t *testing.T) {
	l := newLab(t, vpc.Config{})
	form := url.Values{"Action": {"AssignPrivateIpAddresses"}, "Version": {ec2api.Version}, "NetworkInterfaceId": {l.enis[0].ID}}
	for i, n := range []string{"1", "2", "10", "11"} {
		form.Set("PrivateIpAddress."+n, "10.10.1.7"+string(rune('0'+i)))
	}
	_, body := l.post(form.Encode())
	var last int
	for _, a := range []string{"10.10.1.70", "10.10.1.71", "10.10.1.72", "10.10.1.73"} {
		i := strings.Index(body, a)
		if i < last {
			t.Fatalf("%s is out of order in %s", a, body)
		}
		last = i
	}
}

func TestTheCallerIsTheAccessKeyOfTheSignature(t *testing.T) {
	for authorization, want := range map[string]string{
		"AWS4-HMAC-SHA256 Credential=AKIALAB1/20260901/us-west-2/ec2/aws4_request, SignedHeaders=host, Signature=00": "AKIALAB1",
		"Basic Zm9vOmJhcg==": "anonymous",
		"":                   "anonymous",
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set("Authorization", authorization)
		if got := ec2api.Caller(r); got != want {
			t.Errorf("%q is from %q, want %q", authorization, got, want)
		}
	}
}

// FuzzRequest: whatever is sent, the answer is well-formed, and never that the lab is broken.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"Action=DescribeNetworkInterfaces&Version=2016-11-15&Filter.1.Name=addresses.private-ip-address&Filter.1.Value.1=10.10.1.*",
		"Action=AssignPrivateIpAddresses&Version=2016-11-15&NetworkInterfaceId=eni-0&PrivateIpAddress.1=10.10.1.70",
		"Action=RunInstances&Version=2016-11-15&ImageId=ami-1&InstanceType=m5.large&MinCount=1&MaxCount=2&NetworkInterface.1.DeviceIndex=0",
		"Action=CreateTags&Version=2016-11-15&ResourceId.1=vpc-0&Tag.1.Key=a&Tag.1.Value=%00b",
		"Action=ModifyNetworkInterfaceAttribute&Version=2016-11-15&NetworkInterfaceId=eni-0&Attachment.AttachmentId=a",
		"Action=DescribeTags&Version=2016-11-15&NextToken=x&MaxResults=5&Filter.1.Name=tag:&Filter.2.Name=tag:a&Filter.2.Value.1=",
		"Action=GetSubnetCidrReservations&Version=2016-11-15&SubnetId.1.2...=x",
		"%zz", "Action=&Version=", "A.B.1=&A=1&A.B=2",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, form string) {
		l := newLab(t, vpc.Config{})
		status, body := l.post(form)
		if status >= http.StatusInternalServerError {
			t.Fatalf("%d: %s", status, body)
		}
		for d := xml.NewDecoder(strings.NewReader(body)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatalf("%v in %s", err, body)
			}
		}
	})
}
