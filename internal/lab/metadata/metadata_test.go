// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package metadata

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// epoch lies before the clock of a synctest bubble.
var epoch = time.Date(1999, 12, 1, 0, 0, 0, 0, time.UTC)

// world is a VPC with one instance, as of epoch.
type world struct {
	cloud    *vpc.Cloud
	instance vpc.Instance
	now      time.Time
	service  *Service
}

func newWorld(t *testing.T, lag time.Duration, setup vpc.InstanceSetup) *world {
	t.Helper()
	w := &world{cloud: vpc.New(vpc.Config{Propagation: vpc.Propagation{IMDS: lag}}), now: epoch.Add(time.Hour)}
	v, err := w.cloud.AddVPC(epoch, vpc.VPCSetup{IPv4: netip.MustParsePrefix("10.10.0.0/16"), IPv6: netip.MustParsePrefix("2600:1f14:abc:de00::/56")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.cloud.AddSubnet(epoch, vpc.SubnetSetup{
		VPCID: v.ID, AZ: "us-west-2a",
		IPv4: netip.MustParsePrefix("10.10.1.0/24"), IPv6: netip.MustParsePrefix("2600:1f14:abc:de01::/64"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range setup.ENIs {
		setup.ENIs[i].SubnetID = s.ID
	}
	if w.instance, err = w.cloud.AddInstance(epoch, setup); err != nil {
		t.Fatal(err)
	}
	w.service = New(Config{Cloud: w.cloud, InstanceID: w.instance.ID, Now: func() time.Time { return w.now }})
	return w
}

func worker() vpc.InstanceSetup {
	addrs := func(s ...string) (out []netip.Addr) {
		for _, a := range s {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	return vpc.InstanceSetup{
		Name: "worker-1", Type: "m5.2xlarge", Tags: map[string]string{"role": "upf", "a/b": "hidden"},
		ENIs: []vpc.ENISetup{
			{AddressRequest: vpc.AddressRequest{Primary: addrs("10.10.1.10")[0]}},
			{AddressRequest: vpc.AddressRequest{
				Primary: addrs("10.10.1.20")[0], Secondary: addrs("10.10.1.21", "10.10.1.22"),
				Prefixes: []netip.Prefix{netip.MustParsePrefix("10.10.1.64/28")}, IPv6: addrs("2600:1f14:abc:de01::5"),
				IPv6Prefixes: []netip.Prefix{netip.MustParsePrefix("2600:1f14:abc:de01:1::/80")},
			}},
		},
	}
}

func (w *world) do(t *testing.T, method, path string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.service.ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

func (w *world) token(t *testing.T, ttl string) string {
	t.Helper()
	status, token := w.do(t, http.MethodPut, tokenPath, ttlHeader, ttl)
	if status != http.StatusOK || token == "" {
		t.Fatalf("token: %d %s", status, token)
	}
	return token
}

// get reads a path with a fresh token; a status other than 200 is returned as "404".
func (w *world) get(t *testing.T, path string) string {
	t.Helper()
	status, body := w.do(t, http.MethodGet, path, tokenHeader, w.token(t, "60"))
	if status != http.StatusOK {
		return http.StatusText(status)
	}
	return body
}

func TestATokenIsRequired(t *testing.T) {
	w := newWorld(t, 0, worker())
	const path = "/latest/meta-data/instance-id"
	token := w.token(t, "60")
	for name, tc := range map[string]struct {
		method string
		path   string
		header []string
		want   int
	}{
		"read without":      {http.MethodGet, path, nil, http.StatusUnauthorized},
		"read with another": {http.MethodGet, path, []string{tokenHeader, "x"}, http.StatusUnauthorized},
		"read with":         {http.MethodGet, path, []string{tokenHeader, token}, http.StatusOK},
		"head with":         {http.MethodHead, path, []string{tokenHeader, token}, http.StatusOK},
		"post":              {http.MethodPost, path, []string{tokenHeader, token}, http.StatusMethodNotAllowed},
		"token without ttl": {http.MethodPut, tokenPath, nil, http.StatusBadRequest},
		"ttl 0":             {http.MethodPut, tokenPath, []string{ttlHeader, "0"}, http.StatusBadRequest},
		"ttl too long":      {http.MethodPut, tokenPath, []string{ttlHeader, "21601"}, http.StatusBadRequest},
		"ttl longest":       {http.MethodPut, tokenPath, []string{ttlHeader, "21600"}, http.StatusOK},
		"through a proxy":   {http.MethodPut, tokenPath, []string{ttlHeader, "60", "X-Forwarded-For", "10.0.0.1"}, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			if got, body := w.do(t, tc.method, tc.path, tc.header...); got != tc.want {
				t.Errorf("got %d %s, want %d", got, body, tc.want)
			}
		})
	}
	w.now = w.now.Add(time.Minute)
	if got, _ := w.do(t, http.MethodGet, path, tokenHeader, token); got != http.StatusUnauthorized {
		t.Errorf("an expired token: %d", got)
	}
}

func TestKeys(t *testing.T) {
	w := newWorld(t, 0, worker())
	enis := w.cloud.View(w.now).ENIs(w.instance.ID)
	macs := "network/interfaces/macs/"
	first, second := macs+enis[0].MAC+"/", macs+enis[1].MAC+"/"
	for path, want := range map[string]string{
		"instance-id":                        w.instance.ID,
		"instance-type":                      "m5.2xlarge",
		"mac":                                enis[0].MAC,
		"local-ipv4":                         "10.10.1.10",
		"local-hostname":                     "ip-10-10-1-10.us-west-2.compute.internal",
		"placement/availability-zone":        "us-west-2a",
		"placement/region":                   "us-west-2",
		"tags/instance/":                     "Name\nrole",
		"tags/instance/role":                 "upf",
		"iam/security-credentials/":          roleName,
		macs:                                 sorted(enis[0].MAC+"/", enis[1].MAC+"/"),
		strings.TrimSuffix(macs, "/"):        sorted(enis[0].MAC+"/", enis[1].MAC+"/"),
		first + "device-number":              "0",
		first + "local-ipv4s":                "10.10.1.10",
		first + "ipv6s":                      "Not Found",
		first + "network-card":               "Not Found",
		second + "device-number":             "1",
		second + "interface-id":              enis[1].ID,
		second + "mac":                       enis[1].MAC,
		second + "owner-id":                  w.cloud.AccountID(),
		second + "local-ipv4s":               "10.10.1.20\n10.10.1.21\n10.10.1.22",
		second + "local-hostname":            "ip-10-10-1-20.us-west-2.compute.internal",
		second + "ipv4-prefix":               "10.10.1.64/28",
		second + "ipv6s":                     "2600:1f14:abc:de01::5",
		second + "ipv6-prefix":               "2600:1f14:abc:de01:1::/80",
		second + "subnet-id":                 enis[1].SubnetID,
		second + "vpc-id":                    enis[1].VPCID,
		second + "subnet-ipv4-cidr-block":    "10.10.1.0/24",
		second + "subnet-ipv6-cidr-blocks":   "2600:1f14:abc:de01::/64",
		second + "vpc-ipv4-cidr-block":       "10.10.0.0/16",
		second + "vpc-ipv4-cidr-blocks":      "10.10.0.0/16",
		second + "vpc-ipv6-cidr-blocks":      "2600:1f14:abc:de00::/56",
		second + "ipv4s":                     "Not Found",
		second + "interface-id/":             "Not Found",
		"autoscaling/target-lifecycle-state": "Not Found",
		"nothing":                            "Not Found",
	} {
		if got := w.get(t, "/latest/meta-data/"+path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	want := "device-number\ninterface-id\nipv4-prefix\nipv6-prefix\nipv6s\nlocal-hostname\nlocal-ipv4s\nmac\nowner-id\n" +
		"security-group-ids\nsecurity-groups\nsubnet-id\nsubnet-ipv4-cidr-block\nsubnet-ipv6-cidr-blocks\nvpc-id\n" +
		"vpc-ipv4-cidr-block\nvpc-ipv4-cidr-blocks\nvpc-ipv6-cidr-blocks"
	if diff := cmp.Diff(want, w.get(t, "/latest/meta-data/"+second)); diff != "" {
		t.Error(diff)
	}
}

func sorted(a, b string) string { return min(a, b) + "\n" + max(a, b) }

func TestNetworkCardIsShownOnMultiCardTypes(t *testing.T) {
	w := newWorld(t, 0, vpc.InstanceSetup{Type: "p4d.24xlarge", ENIs: []vpc.ENISetup{{}, {NetworkCard: 2}}})
	var cards []string
	for _, e := range w.cloud.View(w.now).ENIs(w.instance.ID) {
		cards = append(cards, w.get(t, "/latest/meta-data/network/interfaces/macs/"+e.MAC+"/network-card"))
	}
	if diff := cmp.Diff([]string{"0", "2"}, cards); diff != "" {
		t.Error(diff)
	}
}

func TestChangesAreShownOneLagLater(t *testing.T) {
	w := newWorld(t, 2*time.Second, worker())
	e := w.cloud.View(w.now).ENIs(w.instance.ID)[0]
	path := "/latest/meta-data/network/interfaces/macs/" + e.MAC + "/local-ipv4s"
	_, err := w.cloud.AssignPrivateIPAddresses(w.now, vpc.AssignPrivateIPAddressesInput{
		NetworkInterfaceID: e.ID, Addresses: []netip.Addr{netip.MustParseAddr("10.10.1.99")},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(2*time.Second - 1)
	if got := w.get(t, path); got != "10.10.1.10" {
		t.Errorf("before the lag: %q", got)
	}
	w.now = w.now.Add(1)
	if got := w.get(t, path); got != "10.10.1.10\n10.10.1.99" {
		t.Errorf("after the lag: %q", got)
	}
	if _, err := w.cloud.TerminateInstances(w.now, []string{w.instance.ID}); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(2 * time.Second)
	if got := w.get(t, "/latest/meta-data/instance-id"); got != "Not Found" {
		t.Errorf("a terminated instance has metadata: %q", got)
	}
}

// The SDK's own clients are the judges of the protocol.
func TestTheSDKReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, worker())
		w.now = time.Now()
		client := imds.New(imds.Options{Endpoint: "http://imds", HTTPClient: handlerClient{w.service}})
		doc, err := client.GetInstanceIdentityDocument(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{doc.InstanceID, doc.InstanceType, doc.Region, doc.AvailabilityZone, doc.PrivateIP, doc.AccountID}
		want := []string{w.instance.ID, "m5.2xlarge", "us-west-2", "us-west-2a", "10.10.1.10", w.cloud.AccountID()}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		keys, err := ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = client }).Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if keys.Expired() || !keys.CanExpire {
			t.Errorf("credentials expire at %v, now %v", keys.Expires, time.Now())
		}
		if got := Caller(keys.AccessKeyID); got != w.instance.ID {
			t.Errorf("the caller of %s is %s, want %s", keys.AccessKeyID, got, w.instance.ID)
		}
		if got := Caller("AKIATEST"); got != "AKIATEST" {
			t.Errorf("a foreign key is %s", got)
		}
	})
}

// handlerClient is an SDK's HTTP client over a handler.
type handlerClient struct{ handler http.Handler }

func (c handlerClient) Do(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = io.NopCloser(strings.NewReader(""))
	}
	c.handler.ServeHTTP(rec, r)
	return rec.Result(), nil
}
