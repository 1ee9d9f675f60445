// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package awscli

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// throttled: a bucket with one token, which is not filled again.
func throttled(t *testing.T, l *lab) {
	assign := "assign-private-ip-addresses --network-interface-id " + l.eni("worker-1", 1) + " --private-ip-addresses "
	l.accept(assign + "10.10.1.70")
	l.refuse("RequestLimitExceeded", "Request limit exceeded.", assign+"10.10.1.71")
	l.accept("unassign-private-ip-addresses --private-ip-addresses 10.10.1.70 --network-interface-id " + l.eni("worker-1", 1)) // a bucket of its own
	want := `{"calls":[` +
		`{"action":"AssignPrivateIpAddresses","caller":"AKIATEST","result":"RequestLimitExceeded","count":1},` +
		`{"action":"AssignPrivateIpAddresses","caller":"AKIATEST","result":"ok","count":1},` +
		`{"action":"DescribeNetworkInterfaces","caller":"AKIATEST","result":"ok","count":1},` +
		`{"action":"UnassignPrivateIpAddresses","caller":"AKIATEST","result":"ok","count":1}]}`
	if got := l.request(http.MethodGet, "calls", ""); got != want {
		t.Errorf("calls\n got %s\nwant %s", got, want)
	}
}

// faults: errors that no request earns are made on demand.
func faults(t *testing.T, l *lab) {
	assign := "assign-private-ip-addresses --network-interface-id " + l.eni("worker-1", 1) + " --private-ip-addresses "
	for i, code := range []string{
		"InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable", // transient
		"Throttling", "ThrottlingException", // as RequestLimitExceeded
		"UnauthorizedOperation",
	} {
		l.request(http.MethodPost, "faults", "[{action: AssignPrivateIpAddresses, kind: error-before, code: "+code+"}]")
		l.pair(code, "", assign+fmt.Sprintf("{10.10.1.%d|10.10.1.%d}", 70+i, 90+i))
	}
	l.request(http.MethodPost, "faults", "[{action: AssignPrivateIpAddresses, kind: error-after}]")
	l.refuse("InternalError", "An internal error has occurred", assign+"10.10.1.80")
	l.accept("describe-network-interfaces --filters Name=addresses.private-ip-address,Values=10.10.1.80").
		expect(t, map[string]string{"NetworkInterfaces.0.NetworkInterfaceId": `"` + l.eni("worker-1", 1) + `"`})
}

// lostReply: the CLI sees a closed connection, and the address is assigned all the same.
func lostReply(t *testing.T, l *lab) {
	a := l.call("assign-private-ip-addresses --private-ip-addresses 10.10.1.70 --network-interface-id " + l.eni("worker-1", 1))
	if a.code != "no answer" || !strings.Contains(a.message, "Connection was closed") {
		t.Errorf("got %s: %s", a.code, a.message)
	}
	l.accept("describe-network-interfaces --filters Name=addresses.private-ip-address,Values=10.10.1.70").
		expect(t, map[string]string{"NetworkInterfaces.0.NetworkInterfaceId": `"` + l.eni("worker-1", 1) + `"`})
}

// request speaks to the lab itself.
func (l *lab) request(method, path, body string) string {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, l.url+"/_lab/"+path, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	out, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		l.t.Fatalf("%s %s: %s %s (%v)", method, path, res.Status, out, err)
	}
	return strings.TrimSpace(string(out))
}
