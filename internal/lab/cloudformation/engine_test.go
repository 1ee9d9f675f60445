// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// lab is an engine with everything that the lab makes itself.
func lab() (*Engine, *vpc.Cloud, *Inert) {
	cloud := vpc.New(vpc.Config{})
	inert := NewInert("us-west-2", "123456789012")
	providers := inert.Providers()
	maps.Copy(providers, Network(cloud))
	return New(Config{
		Region: "us-west-2", AccountID: "123456789012", Zones: []string{"us-west-2a", "us-west-2b"}, Providers: providers,
	}), cloud, inert
}

func template(t *testing.T, file string) *Template {
	t.Helper()
	data, err := os.ReadFile("../../../cfn/" + file)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestTheVPCIsDeployedAndDeleted(t *testing.T) {
	t.Parallel()
	engine, cloud, inert := lab()
	stack, err := engine.Create(t.Context(), "try", template(t, "vpc.yaml"), map[string]string{
		"Multus2PoolBlocks": "10.10.3.32/27, 10.10.4.64/27",
	})
	if err != nil {
		t.Fatal(err)
	}
	view := cloud.View(time.Now())
	var got []string
	for _, r := range view.Reservations() {
		s, _ := view.Subnet(r.SubnetID)
		got = append(got, strings.Join([]string{s.AZ, s.Tags["multus"], r.CIDR.String(), r.Type, r.Tags["multus-vpc.io/role"]}, " "))
	}
	slices.Sort(got)
	want := []string{
		"us-west-2a 1 10.10.1.128/26 explicit static",
		"us-west-2a 1 10.10.1.64/26 explicit pool",
		"us-west-2a 2 10.10.3.128/26 explicit static",
		"us-west-2a 2 10.10.3.32/27 explicit pool",
		"us-west-2b 1 10.10.2.128/26 explicit static",
		"us-west-2b 1 10.10.2.64/26 explicit pool",
		"us-west-2b 2 10.10.4.128/26 explicit static",
		"us-west-2b 2 10.10.4.64/27 explicit pool",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reservations (-want +got):\n%s", diff)
	}
	if subnets := strings.Split(stack.Outputs["MultusSubnets"], ","); len(subnets) != 4 || !strings.HasPrefix(subnets[3], "subnet-") {
		t.Errorf("MultusSubnets: got %q", stack.Outputs["MultusSubnets"])
	}
	if v := view.VPCs()[0]; v.Tags["Name"] != "try" {
		t.Errorf("tags of the VPC: %v", v.Tags)
	}

	if err := engine.Delete(t.Context(), "try"); err != nil {
		t.Fatal(err)
	}
	view = cloud.View(time.Now())
	if n := len(view.VPCs()) + len(view.Subnets()) + len(view.Reservations()); n != 0 || len(inert.Left()) != 0 || len(engine.Stacks()) != 0 {
		t.Errorf("left: %d in the VPC, %v, %v", n, inert.Left(), engine.Stacks())
	}
	if err := engine.Delete(t.Context(), "try"); err != nil {
		t.Errorf("a second delete: %v", err)
	}
}

// fails is a provider whose Create or Delete fails, once.
type fails struct {
	Provider
	create, remove bool
}

func (f *fails) Create(ctx context.Context, r Request) (Physical, error) {
	if f.create {
		return Physical{}, errors.New("no")
	}
	return f.Provider.Create(ctx, r)
}

func (f *fails) Delete(ctx context.Context, r Request, p Physical) error {
	if f.remove {
		f.remove = false
		return errors.New("not yet")
	}
	return f.Provider.Delete(ctx, r, p)
}

func TestAFailureAtEachTypeLeavesNothing(t *testing.T) {
	t.Parallel()
	parsed := template(t, "vpc.yaml")
	for id, r := range parsed.Resources {
		engine, cloud, inert := lab()
		engine.cfg.Providers[r.Type] = &fails{Provider: engine.cfg.Providers[r.Type], create: true}
		_, err := engine.Create(t.Context(), "try", parsed, map[string]string{"EnableIpv6": "true"})
		if err == nil || !strings.Contains(err.Error(), r.Type) || !strings.HasSuffix(err.Error(), "no") {
			t.Errorf("%s: got error %v", id, err)
		}
		view := cloud.View(time.Now())
		if n := len(view.VPCs()) + len(view.Subnets()) + len(view.Reservations()); n != 0 || len(inert.Left()) != 0 || len(engine.Stacks()) != 0 {
			t.Errorf("%s: left: %d in the VPC, %v, %v", id, n, inert.Left(), engine.Stacks())
		}
	}
}

func TestADeleteThatFailedGoesOn(t *testing.T) {
	t.Parallel()
	engine, cloud, _ := lab()
	engine.cfg.Providers["AWS::EC2::Subnet"] = &fails{Provider: engine.cfg.Providers["AWS::EC2::Subnet"], remove: true}
	if _, err := engine.Create(t.Context(), "try", template(t, "vpc.yaml"), nil); err != nil {
		t.Fatal(err)
	}
	if err := engine.Delete(t.Context(), "try"); err == nil || !strings.Contains(err.Error(), "(AWS::EC2::Subnet)") {
		t.Fatalf("got error %v", err)
	}
	stacks := engine.Stacks()
	if len(stacks) != 1 || stacks[0].Status != StatusDeleteFailed {
		t.Fatalf("stacks: %+v", stacks)
	}
	if err := engine.Delete(t.Context(), "try"); err != nil {
		t.Fatal(err)
	}
	if left := cloud.View(time.Now()).VPCs(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAStackIsMadeOnce(t *testing.T) {
	t.Parallel()
	engine, _, _ := lab()
	if _, err := engine.Create(t.Context(), "try", template(t, "vpc.yaml"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Create(t.Context(), "try", template(t, "vpc.yaml"), nil); err == nil {
		t.Error("a stack was made twice")
	}
	if len(engine.Stacks()) != 1 {
		t.Error("the refused stack replaced the first one")
	}
}
