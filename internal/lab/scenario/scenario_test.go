// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/strictyaml"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

func example(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("../../../examples/lab/two-workers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t *testing.T, data []byte) *Scenario {
	t.Helper()
	s, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func build(t *testing.T, s *Scenario) *Lab {
	t.Helper()
	l, err := Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTheExampleIsWhatItSays(t *testing.T) {
	l := build(t, parse(t, example(t)))
	view := l.Cloud.View(time.Now())
	var got []string
	for _, name := range []string{"worker-1", "worker-2"} {
		i, ok := view.Instance(l.Instances[name])
		if !ok {
			t.Fatalf("no instance %s", name)
		}
		got = append(got, fmt.Sprintf("%s %s %s %s", i.Name(), i.Type, i.AZ, i.State))
		for j, e := range view.ENIs(i.ID) {
			s, _ := view.Subnet(e.SubnetID)
			got = append(got, fmt.Sprintf("%d.%d %s %v %s", e.Attachment.NetworkCard, e.Attachment.DeviceIndex,
				s.Tags["Name"], l.ENIs[name][j] == e.ID && l.Early(e.ID), e.Tags["node.k8s.amazonaws.com/no_manage"]))
			if j == 1 {
				got = append(got, e.Primary.String())
			}
		}
	}
	for _, r := range view.Reservations() {
		got = append(got, fmt.Sprintf("%s %s %s", r.CIDR, r.Type, r.Tags["multus-vpc.io/role"]))
	}
	want := []string{
		"worker-1 m5.2xlarge us-west-2a running", "0.0 primary true ", "0.1 multus-1 true true", "10.10.1.20",
		"worker-2 m5.2xlarge us-west-2a running", "0.0 primary true ", "0.1 multus-1 true true", "10.10.1.21",
		"10.10.1.64/26 explicit pool",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if l.Cloud.Region() != "us-west-2" || l.Cloud.Lags() != (vpc.Propagation{Route: time.Second, IMDS: 2 * time.Second, Describe: time.Second}) {
		t.Errorf("region %s, lags %+v", l.Cloud.Region(), l.Cloud.Lags())
	}
}

const twoSubnets = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2600:1f14:abc:de00::/56"}
subnets:
- {name: primary, cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, ipv6: "2600:1f14:abc:de01::/64", az: us-west-2a}
- {name: elsewhere, cidr: 10.10.2.0/24, az: us-west-2b}
`

func TestPlacesAndAddresses(t *testing.T) {
	l := build(t, parse(t, []byte(twoSubnets+`
instances:
- name: gpu
  type: p4d.24xlarge
  enis:
  - {subnet: multus-1}
  - {subnet: multus-1, networkCard: 1}
  - {subnet: multus-1, deviceIndex: 1}
  - {subnet: multus-1, addresses: [10.10.1.4, 10.10.1.5], ipv6Addresses: ["2600:1f14:abc:de01::5"], link: late}
  - {subnet: multus-1, networkCard: 1}
`)))
	view := l.Cloud.View(time.Now())
	var got []string
	for _, id := range l.ENIs["gpu"] {
		e, _ := view.ENI(id)
		got = append(got, fmt.Sprintf("%d.%d %v", e.Attachment.NetworkCard, e.Attachment.DeviceIndex, l.Early(id)))
	}
	if diff := cmp.Diff([]string{"0.0 true", "1.1 true", "0.1 true", "0.2 false", "1.2 true"}, got); diff != "" {
		t.Error(diff)
	}
	e, _ := view.ENI(l.ENIs["gpu"][3])
	want := []netip.Addr{netip.MustParseAddr("10.10.1.4"), netip.MustParseAddr("10.10.1.5"), netip.MustParseAddr("2600:1f14:abc:de01::5")}
	if fmt.Sprint(e.Addresses()) != fmt.Sprint(want) {
		t.Errorf("addresses %v, want %v (10.10.1.4 must not be chosen for an ENI before)", e.Addresses(), want)
	}
}

func TestParseReportsEveryProblem(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"empty": {"{}", `
vpc.cidr: is missing
subnets: there must be at least one`},
		"unknown keys": {twoSubnets + "instance: []\nec2: {latncy: 1s}\n", `
ec2.latncy: unknown key (known here: latency, propagation, boot, assignOwned, mixedBatch, throttle, faults, seed)
instance: unknown key (known here: vpc, subnets, instances, ec2, autoScaling, events, functions)`},
		"subnets": {`
vpc: {cidr: 10.10.0.1/16}
subnets:
- {cidr: 10.10.0.0/24, az: us-west-2a}
- {name: a, cidr: 10.10.1.5/24, az: us-west-2}
- {name: a, az: eu-central-1a, reservations: [{type: static}]}
- {name: -x, cidr: 10.10.3.0/24, az: us-west-2b}`, `
vpc.cidr: 10.10.0.1/16 has host bits set; the network is 10.10.0.0/16
subnets[0].name: is missing
subnets[1].cidr: 10.10.1.5/24 has host bits set; the network is 10.10.1.0/24
subnets[1].az: "us-west-2" is not an availability zone such as us-west-2a
subnets[2].name: "a" is also the name of subnets[1]
subnets[2].cidr: is missing
subnets[2].az: eu-central-1a lies in another Region than us-west-2a of subnets[0]; a lab has one
subnets[2].reservations[0].cidr: is missing
subnets[2].reservations[0].type: "static" is neither explicit nor prefix
subnets[3].name: "-x" is not a name: letters, digits, dots, dashes and underscores, at most 63, none of the signs at an end`},
		"instances": {twoSubnets + `
instances:
- {name: w}
- {name: x, enis: [{subnet: primary, link: late}, {subnet: nowhere, link: soon}, {subnet: elsewhere}]}
- {name: v, enis: [{subnet: primary, deviceIndex: 1, addresses: ["::1"], ipv6Addresses: [10.0.0.1]}]}`, `
instances[0].enis: there must be at least one
instances[1].enis[0].link: the primary ENI cannot be late
instances[1].enis[1].link: "soon" is neither early nor late
instances[1].enis[1].subnet: "nowhere" is not the name of a subnet
instances[1].enis[2].subnet: elsewhere lies in us-west-2b, but the instance is in us-west-2a
instances[2].enis[0].addresses[0]: ::1 is not an IPv4 address
instances[2].enis[0].ipv6Addresses[0]: 10.0.0.1 is not an IPv6 address
instances[2].enis: none has device index 0 on network card 0: an instance has a primary ENI`},
		"ec2": {twoSubnets + `
ec2:
  latency: -1s
  propagation: {route: 3s, imds: 2s, describe: -1s}
  assignOwned: maybe
  mixedBatch: half
  throttle: {AssignIPs: {burst: 1, refill: 1}, default: {read: {burst: 1}}}
  faults: [{kind: lost}]`, `
ec2.latency: must not be negative
ec2.throttle.default.read.refill: is missing
ec2.throttle.AssignIPs: "AssignIPs" is not an action that the lab knows (…)
ec2.faults[0].kind: "lost" is not one of lost-reply, error-before, error-after, 5xx, slow
ec2.propagation.describe: must be 0 to 1h0m0s
ec2.propagation.route: must be at most imds (2s): the metadata never shows what is not routed yet
ec2.assignOwned: "maybe" is neither ok nor error
ec2.mixedBatch: "half" is neither atomic nor partial`},
		"what EC2 refuses": {`
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: a, cidr: 10.10.1.0/24, az: us-west-2a, reservations: [{cidr: 10.10.1.64/26}, {cidr: 10.10.1.96/28}]}
- {name: b, cidr: 10.10.1.128/25, az: us-west-2a}
instances:
- {name: w, enis: [{subnet: a, addresses: [10.10.1.20]}, {subnet: a, addresses: [10.10.1.21, 10.10.1.20]}, {subnet: a, addresses: [10.10.2.1]}]}
- {name: u, type: z9.huge, enis: [{subnet: a}]}
- {name: v, type: m5.large, enis: [{subnet: a}, {subnet: a}, {subnet: a}, {subnet: a}]}
- {name: z, enis: [{subnet: a}, {subnet: a, networkCard: 1}]}`, `
subnets[0].reservations[1]: EC2 refuses it: Reservation CIDR 10.10.1.96/28 has overlap with existing reserved CIDR block (InvalidParameterValue)
subnets[1]: EC2 refuses it: The CIDR '10.10.1.128/25' conflicts with another subnet (InvalidSubnet.Conflict)
instances[0].enis[1]: EC2 refuses it: The specified address is already in use. (InvalidIPAddress.InUse)
instances[0].enis[2]: EC2 refuses it: Address does not fall within the subnet's address range (InvalidParameterValue)
instances[1]: EC2 refuses it: Invalid value 'z9.huge' for InstanceType. (InvalidParameterValue)
instances[2]: EC2 refuses it: Interface count 4 exceeds the limit for m5.large (AttachmentLimitExceeded)
instances[3]: EC2 refuses it: Network card index 1 is not valid for instance type m5.2xlarge. (InvalidParameterValue)`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tc.in))
			if _, ok := errors.AsType[*strictyaml.Error](err); !ok {
				t.Fatalf("got %v", err)
			}
			got := strings.ReplaceAll(err.Error(), strings.Join(actions(), ", "), "…")
			if diff := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// clients are the SDK's, as an agent on the instance makes them.
func clients(l *Lab, instance string) (*ec2.Client, *imds.Client) {
	metadata := imds.New(imds.Options{Endpoint: "http://imds", HTTPClient: &http.Client{Transport: l.IMDS(instance)}})
	return ec2.New(ec2.Options{
		Region:       "us-west-2",
		BaseEndpoint: aws.String("http://ec2"),
		HTTPClient:   &http.Client{Transport: l.EC2()},
		Credentials:  aws.NewCredentialsCache(ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = metadata })),
		Retryer:      aws.NopRetryer{},
	}), metadata
}

func TestALabInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := parse(t, example(t))
		s.EC2.Faults = []front.Fault{{Action: "AssignPrivateIpAddresses", Nth: 2, Kind: front.LostReply}}
		l := build(t, s)
		ec2c, imdsc := clients(l, "worker-1")
		assign := func(addr string) error {
			_, err := ec2c.AssignPrivateIpAddresses(t.Context(), &ec2.AssignPrivateIpAddressesInput{
				NetworkInterfaceId: aws.String(l.ENIs["worker-1"][1]), PrivateIpAddresses: []string{addr},
			})
			return err
		}
		start := time.Now()
		if err := assign("10.10.1.64"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 80*time.Millisecond {
			t.Errorf("the call took %v", took)
		}
		if err := assign("10.10.1.65"); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want a lost reply", err)
		}
		err := assign("10.10.1.21")
		if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorMessage() != "[10.10.1.21] assigned, but move is not allowed." {
			t.Errorf("got %v", err)
		}
		shown := func() string {
			e, _ := l.Cloud.View(time.Now()).ENI(l.ENIs["worker-1"][1])
			out, err := imdsc.GetMetadata(t.Context(), &imds.GetMetadataInput{Path: "network/interfaces/macs/" + e.MAC + "/local-ipv4s"})
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(out.Content)
			if err != nil {
				t.Fatal(err)
			}
			return strings.ReplaceAll(string(b), "\n", " ")
		}
		if got := shown(); got != "10.10.1.20" {
			t.Errorf("the metadata shows %s at once", got)
		}
		select {
		case <-time.After(2 * time.Second):
		case <-t.Context().Done():
		}
		if got := shown(); got != "10.10.1.20 10.10.1.64 10.10.1.65" {
			t.Errorf("the metadata shows %s in the end", got)
		}
		want := []front.CallCount{
			{Call: front.Call{Action: "AssignPrivateIpAddresses", Caller: l.Instances["worker-1"], Result: "InvalidParameterValue"}, Count: 1},
			{Call: front.Call{Action: "AssignPrivateIpAddresses", Caller: l.Instances["worker-1"], Result: "lost-reply"}, Count: 1},
			{Call: front.Call{Action: "AssignPrivateIpAddresses", Caller: l.Instances["worker-1"], Result: "ok"}, Count: 1},
		}
		if diff := cmp.Diff(want, l.Front.Calls()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTwoBuildsAreTheSame(t *testing.T) {
	s := parse(t, example(t))
	ids := func() string {
		l := build(t, s)
		b, err := json.Marshal([]any{l.Instances, l.ENIs, l.Subnets})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if a, b := ids(), ids(); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}

// What Parse accepts is a sound lab: every address has one owner, every instance is there.
func FuzzParse(f *testing.F) {
	f.Add(example(f))
	f.Add([]byte(twoSubnets))
	f.Add([]byte(twoSubnets + "instances: [{name: a, type: p4d.24xlarge, enis: [{subnet: multus-1, networkCard: 0}, {subnet: multus-1, networkCard: 3}]}]"))
	f.Add([]byte("vpc: {cidr: 10.0.0.0/28}\nsubnets: [{name: a, cidr: 10.0.0.0/28, az: a-b-1c}]\ninstances: [{name: x, enis: [{subnet: a}]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			if wrong, ok := errors.AsType[*strictyaml.Error](err); !ok || len(wrong.Problems) == 0 {
				t.Errorf("an error without problems: %v", err)
			}
			return
		}
		l := build(t, s)
		view := l.Cloud.View(time.Now())
		if len(view.Instances()) != len(s.Instances) {
			t.Errorf("%d instances, want %d", len(view.Instances()), len(s.Instances))
		}
		owner := map[netip.Addr]string{}
		for _, e := range view.AllENIs() {
			for _, a := range e.Addresses() {
				if other, taken := owner[a]; taken {
					t.Errorf("%s belongs to %s and %s", a, other, e.ID)
				}
				owner[a] = e.ID
			}
		}
	})
}
