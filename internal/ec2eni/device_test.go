// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

func (w *world) instance(name string) eni.InstanceID { return eni.InstanceID(w.Instances[name]) }

func (w *world) newDevice(token string) eni.NewDevice {
	return eni.NewDevice{
		Subnet: w.subnet("multus"), Description: "pods", Token: token, Tags: map[string]string{"a": "b", "c": "d"},
		Primary: netip.MustParseAddr("10.10.1.40"), Secondary: addrs("10.10.1.64", "10.10.1.65"), IPv6Count: 1,
	}
}

func TestADeviceLivesFromCreationToDeletion(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	made, err := w.client.Create(ctx, w.newDevice("t-1"))
	check(err)
	again, err := w.client.Create(ctx, w.newDevice("t-1"))
	check(err)
	if again.ID != made.ID {
		t.Errorf("the same token made %s and %s", made.ID, again.ID)
	}
	if made.Attached() || made.Interface.Primary.String() != "10.10.1.40" || len(made.Secondary) != 2 || len(made.IPv6) != 1 || made.Tags["c"] != "d" {
		t.Errorf("made %+v", made)
	}
	attachment, err := w.client.Attach(ctx, made.ID, w.instance("w-2"), 3, 1)
	check(err)
	check(w.client.SetDeleteOnTermination(ctx, made.ID, attachment, true))
	check(w.client.SetSourceDestCheck(ctx, made.ID, false))
	found, err := w.client.DevicesTagged(ctx, map[string]string{"a": "b", "c": "d"})
	check(err)
	if len(found) != 1 {
		t.Fatalf("found %+v", found)
	}
	d := found[0]
	if d.NetworkCard != 3 || d.DeviceIndex != 1 || d.Attachment != attachment || d.InstanceID != w.instance("w-2") || !d.DeleteOnTermination || d.SourceDestCheck ||
		d.Type != eni.TypeInterface || len(d.Groups) != 1 || d.AttachedAt.IsZero() {
		t.Errorf("attached as %+v", d)
	}
	workers, err := w.client.Workers(ctx, []eni.InstanceID{w.instance("w-2"), "i-0123456789abcdef0"})
	check(err)
	if len(workers) != 1 || workers[0].State != "running" || workers[0].AZ != "us-west-2a" || len(workers[0].Devices) != 3 || workers[0].Gone() {
		t.Errorf("workers %+v", workers)
	}
	if primary, ok := workers[0].Primary(); !ok || primary.SubnetID != w.subnet("primary") {
		t.Errorf("primary %+v", primary)
	}
	if err := w.client.Delete(ctx, made.ID); !errors.Is(err, eni.ErrInUse) {
		t.Errorf("delete while attached: %v", err)
	}
	check(w.client.Detach(ctx, attachment))
	if err := w.client.Detach(ctx, attachment); !errors.Is(err, eni.ErrNotFound) {
		t.Errorf("detach twice: %v", err)
	}
	check(w.client.Delete(ctx, made.ID))
	if err := w.client.Delete(ctx, made.ID); !errors.Is(err, eni.ErrNotFound) {
		t.Errorf("delete twice: %v", err)
	}
	if _, err := w.client.Create(ctx, w.newDevice("t-1")); !errors.Is(err, eni.ErrTokenUsed) {
		t.Errorf("the token of what was deleted: %v", err)
	}
}

func TestWhatIsNotThereIsAbsent(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	subnets, err := w.client.SubnetsFound(t.Context(), []eni.SubnetID{w.subnet("multus"), "subnet-0123456789abcdef0"})
	if err != nil || len(subnets) != 1 || subnets[0].VPC != eni.VPCID(w.VPC) {
		t.Errorf("subnets %+v, %v", subnets, err)
	}
	groups, err := w.client.Groups(t.Context(), []eni.GroupID{eni.GroupID("sg-" + w.VPC[len("vpc-"):]), "sg-0123456789abcdef0"})
	if err != nil || len(groups) != 1 || groups[0].VPC != eni.VPCID(w.VPC) {
		t.Errorf("groups %+v, %v", groups, err)
	}
	layout, err := w.client.Layout(t.Context(), "p4d.24xlarge")
	if err != nil || layout.Interfaces != 60 || len(layout.Cards) != 4 || layout.Cards[3].Interfaces != 15 || layout.Cards[3].EFAOnly() {
		t.Errorf("layout %+v, %v", layout, err)
	}
	tagged, err := w.client.WorkersTagged(t.Context(), "Name", "w-1")
	if err != nil || len(tagged) != 1 || tagged[0].ID != w.instance("w-1") {
		t.Errorf("tagged %+v, %v", tagged, err)
	}
	in, err := w.client.DevicesIn(t.Context(), w.subnet("multus"))
	if err != nil || len(in) != 2 {
		t.Errorf("devices %+v, %v", in, err)
	}
}

// TestATagIsNoPattern: whoever deletes what has a tag does not delete what has others.
func TestATagIsNoPattern(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	if _, err := w.client.Create(t.Context(), w.newDevice("t-1")); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]int{"b": 1, "*": 0, "?": 0, "b*": 0} {
		got, err := w.client.DevicesTagged(t.Context(), map[string]string{"a": value})
		if err != nil || len(got) != want {
			t.Errorf("tagged a=%s are %d, %v", value, len(got), err)
		}
	}
}

func TestWhyADeviceIsRefused(t *testing.T) {
	create := func(change func(*eni.NewDevice)) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			n := w.newDevice("t-2")
			change(&n)
			_, err := w.client.Create(ctx, n)
			return err
		}
	}
	attach := func(card, index int) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			d, err := w.client.Create(ctx, w.newDevice("t-3"))
			if err != nil {
				return errors.New("create: " + err.Error())
			}
			_, err = w.client.Attach(ctx, d.ID, w.instance("w-2"), card, index)
			return err
		}
	}
	for name, tt := range map[string]struct {
		ec2  scenario.EC2
		do   func(context.Context, *world) error
		want error
	}{
		"an address that is taken":       {do: create(func(n *eni.NewDevice) { n.Primary = netip.MustParseAddr("10.10.1.30") }), want: eni.ErrAddressInUse},
		"an address of another subnet":   {do: create(func(n *eni.NewDevice) { n.Primary = netip.MustParseAddr("10.10.9.30") }), want: eni.ErrRefused},
		"a subnet that is not there":     {do: create(func(n *eni.NewDevice) { n.Subnet = "subnet-0123456789abcdef0" }), want: eni.ErrNotFound},
		"a group that is not there":      {do: create(func(n *eni.NewDevice) { n.Groups = []eni.GroupID{"sg-0123456789abcdef0"} }), want: eni.ErrNotFound},
		"a device index that is taken":   {do: attach(1, 1), want: eni.ErrIndexTaken},
		"a network card that is no card": {do: attach(9, 1), want: eni.ErrRefused},
		"an ENI that is attached": {do: func(ctx context.Context, w *world) error {
			_, err := w.client.Attach(ctx, w.eni("w-1"), w.instance("w-2"), 2, 1)
			return err
		}, want: eni.ErrInUse},
		"the instance is full":   {ec2: fault("AttachNetworkInterface", front.ErrorBefore, "AttachmentLimitExceeded"), do: attach(2, 1), want: eni.ErrInstanceFull},
		"the instance is not up": {ec2: fault("AttachNetworkInterface", front.ErrorBefore, "IncorrectState"), do: attach(2, 1), want: eni.ErrNotReady},
		"the instance is pending": {
			ec2: fault("AttachNetworkInterface", front.ErrorBefore, "InvalidInstanceID"), do: attach(2, 1), want: eni.ErrNotReady,
		},
		"not allowed":       {ec2: fault("CreateNetworkInterface", front.ErrorBefore, "UnauthorizedOperation"), do: create(func(*eni.NewDevice) {}), want: eni.ErrUnauthorized},
		"the reply is lost": {ec2: fault("CreateNetworkInterface", front.LostReply, ""), do: create(func(*eni.NewDevice) {}), want: eni.ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tt.ec2)
			if err := tt.do(t.Context(), w); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	w := newWorld(t, scenario.EC2{})
	if err := create(func(n *eni.NewDevice) { n.Token = "" })(t.Context(), w); err == nil {
		t.Error("created without a token")
	}
	w.wantOutcomes(t)
	if _, err := w.client.Create(t.Context(), w.newDevice("t-4")); err != nil {
		t.Fatal(err)
	}
	other := w.newDevice("t-4")
	other.Primary = netip.MustParseAddr("10.10.1.41")
	if _, err := w.client.Create(t.Context(), other); !errors.Is(err, eni.ErrTokenUsed) {
		t.Errorf("a token with other words: %v", err)
	}
}

// calledIn finds the EC2 calls of a file.
var calledIn = regexp.MustCompile(`c\.ec2\.([A-Z]\w+)\(|ec2\.New(\w+)Paginator\(`)

func TestActionsAreThoseThatAreCalled(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var called []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range calledIn.FindAllSubmatch(source, -1) {
			called = append(called, string(m[1])+string(m[2]))
		}
	}
	want := slices.Sorted(slices.Values(slices.Concat(Actions(), WorkerActions())))
	if called = slices.Compact(slices.Sorted(slices.Values(called))); !slices.Equal(called, want) {
		t.Errorf("called are %q, want %q", called, want)
	}
}
