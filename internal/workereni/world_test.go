// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// twoZones is the VPC of these tests: two subnets for pods in each zone, the first with a pool and a static reservation.
const twoZones = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2001:db8:10::/56"}
subnets:
- {name: nodes-a, cidr: 10.10.12.0/24, az: us-west-2a}
- {name: nodes-b, cidr: 10.10.13.0/24, az: us-west-2b}
- name: n4-a
  cidr: 10.10.1.0/24
  ipv6: "2001:db8:10:1::/64"
  az: us-west-2a
  reservations:
  - {cidr: 10.10.1.0/29,   tags: {multus-vpc.io/role: static}}
  - {cidr: 10.10.1.128/26, tags: {multus-vpc.io/role: pool}}
- {name: n6-a, cidr: 10.10.2.0/24, az: us-west-2a}
- {name: n4-b, cidr: 10.10.3.0/24, az: us-west-2b}
- {name: tiny-a, cidr: 10.10.4.0/28, az: us-west-2a}
- {name: v6-a, ipv6: "2001:db8:10:6::/64", az: us-west-2a}
`

// world is a lab in a synctest bubble, on its EC2 through the real SDK.
type world struct {
	t   *testing.T
	lab *scenario.Lab
	log *slog.Logger
	// through, when set, is between everybody and EC2.
	through func(http.RoundTripper) http.RoundTripper
	// groups are a security group of the VPC and one of another VPC.
	group, foreign eni.GroupID
}

func newWorld(t *testing.T, yaml string) *world {
	t.Helper()
	s, err := scenario.Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, lab: lab, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	long := time.Now().Add(-time.Hour)
	other, err := lab.Cloud.AddVPC(long, vpc.VPCSetup{Name: "other", IPv4: netip.MustParsePrefix("10.99.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	for id, of := range map[*eni.GroupID]string{&w.group: lab.VPC, &w.foreign: other.ID} {
		g, err := lab.Cloud.AddSecurityGroup(long, vpc.SecurityGroupSetup{VPCID: of, Name: "pods"})
		if err != nil {
			t.Fatal(err)
		}
		*id = eni.GroupID(g.ID)
	}
	return w
}

// instance launches a worker, an hour ago unless the world's clock is past that.
func (w *world) instance(kind, subnet string) eni.InstanceID {
	w.t.Helper()
	out, err := w.lab.Cloud.RunInstances(time.Now().Add(-time.Minute), vpc.RunInstancesInput{
		ImageID: "ami-0123456789abcdef0", InstanceType: kind, MinCount: 1, MaxCount: 1, SubnetID: w.lab.Subnets[subnet],
		Tags: map[string]string{"Name": "worker"},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return eni.InstanceID(out.Instances[0].ID)
}

// on is an interface in the subnet of that name, as the parser makes it without further words.
func (w *world) on(subnet string, change ...func(*workereni.Interface)) workereni.Interface {
	i := workereni.Interface{Subnet: eni.SubnetID(w.lab.Subnets[subnet]), Addressing: workereni.DHCP, SourceDestCheck: true, DeleteOnTermination: true}
	for _, c := range change {
		c(&i)
	}
	return i
}

func (w *world) config(interfaces ...workereni.Interface) workereni.Config {
	cfg := workereni.Config{Owner: "group-1", Tags: map[string]string{"team": "core"}, Interfaces: interfaces}
	if err := cfg.Validate(); err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

// flow is a flow on the lab's EC2, through a transport.
func (w *world) flow(cfg workereni.Config, through ...func(http.RoundTripper) http.RoundTripper) *workereni.Flow {
	return workereni.New(cfg, w.client(through...), w.log)
}

func (w *world) client(through ...func(http.RoundTripper) http.RoundTripper) *ec2eni.Client {
	rt := w.lab.EC2()
	if w.through != nil {
		rt = w.through(rt)
	}
	for _, f := range through {
		rt = f(rt)
	}
	return ec2eni.New(ec2eni.Config{SDK: aws.Config{
		Region: w.lab.Cloud.Region(), Credentials: credentials.NewStaticCredentialsProvider("AKLAMBDA", "secret", ""),
		HTTPClient: &http.Client{Transport: rt},
	}})
}

// launch gives a worker its ENIs within the samples' 300 s.
func (w *world) launch(f *workereni.Flow, id eni.InstanceID) ([]eni.Device, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Second)
	defer cancel()
	return f.Launch(ctx, workereni.Request{Instance: id})
}

func (w *world) mustLaunch(f *workereni.Flow, id eni.InstanceID) []eni.Device {
	w.t.Helper()
	got, err := w.launch(f, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// enis are all ENIs of the flow in the VPC now, as "instance slot subnet state".
func (w *world) enis() []string {
	names := map[string]string{}
	for name, id := range w.lab.Subnets {
		names[id] = name
	}
	var out []string
	all := w.lab.Cloud.View(time.Now()).AllENIs()
	slices.SortFunc(all, func(a, b vpc.ENI) int { return cmp.Compare(a.Tags[workereni.TagSlot], b.Tags[workereni.TagSlot]) })
	for _, e := range all {
		if e.Tags[workereni.TagOwner] == "" {
			continue
		}
		state := "unattached"
		if a := e.Attachment; a != nil {
			state = fmt.Sprintf("at %d:%d", a.NetworkCard, a.DeviceIndex)
			if a.DeleteOnTermination {
				state += " dies"
			}
			if !e.SourceDestCheck {
				state += " unchecked"
			}
			if a.InstanceID != e.Tags[workereni.TagInstance] {
				state += " of another instance"
			}
		}
		out = append(out, fmt.Sprintf("%s %s %s", e.Tags[workereni.TagSlot], names[e.SubnetID], state))
	}
	return out
}

func (w *world) wantENIs(want ...string) {
	w.t.Helper()
	if got := w.enis(); !slices.Equal(got, want) {
		w.t.Errorf("ENIs:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// calls counts the calls of an action, of all results when result is empty.
func (w *world) calls(action, result string) (n int) {
	for _, c := range w.lab.Front.Calls() {
		if c.Action == action && (result == "" || c.Result == result) {
			n += c.Count
		}
	}
	return n
}

// quiet is a flow that logs nowhere.
func (w *world) quiet(cfg workereni.Config) *workereni.Flow {
	return workereni.New(cfg, w.client(), nil)
}
