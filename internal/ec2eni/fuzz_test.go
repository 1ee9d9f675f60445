// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// inUse is what EC2 may say of addresses that are taken, and which of them can be read from it.
func inUse() map[string][]netip.Addr {
	return map[string][]netip.Addr{
		"[10.0.0.5] assigned, but move is not allowed.":                    addrs("10.0.0.5"),
		"[10.0.0.5, 10.0.0.6,10.0.0.7] assigned, but move is not allowed.": addrs("10.0.0.5", "10.0.0.6", "10.0.0.7"),
		"[10.0.0.5, and more] assigned, but move is not allowed.":          addrs("10.0.0.5"),
		"[2001:db8::5, 2001:DB8:0::6] assigned, but move is not allowed.":  addrs("2001:db8::5", "2001:db8::6"),
		"[10.0.0.16/28] assigned, but move is not allowed.":                nil, // prefixes are no addresses
		"assigned, but move is not allowed.":                               nil,
		"[] assigned, but move is not allowed.":                            nil,
		"[10.0.0.5 assigned, but move is not allowed.":                     nil,
		"]10.0.0.5[ [x,2001:db8::1%eth0] move is not allowed":              addrs("2001:db8::1%eth0"),
		"The specified address is already in use.":                         nil,
		"Address 10.0.0.5 is in use.":                                      nil,
		"[2001:db8::5] is already assigned.":                               addrs("2001:db8::5"),
	}
}

func TestInUseReadsEveryAddress(t *testing.T) {
	for message, want := range inUse() {
		got, ok := errors.AsType[*eni.InUseError](sentinelOf("InvalidParameterValue", message))
		if !ok || !slices.Equal(got.Addrs, want) {
			t.Errorf("%q reads as %v, want %v", message, got, want)
		}
	}
}

// FuzzInUse: whatever EC2 writes, reading it does not fail; an address that is read was written between brackets; and what
// is read, written as EC2 does, reads as the same again.
func FuzzInUse(f *testing.F) {
	if len(inUse()) == 0 {
		f.Fatal("no seeds")
	}
	for message := range inUse() {
		f.Add(message)
	}
	f.Add("Address does not fall within the subnet's address range")
	f.Add("Some of the specified addresses are not assigned to interface eni-0123456789abcdef0")
	f.Fuzz(func(t *testing.T, message string) {
		got := bracketed(message)
		_, rest, _ := strings.Cut(message, "[")
		list, _, closed := strings.Cut(rest, "]")
		if len(got) > 0 && (!closed || len(got) > strings.Count(list, ",")+1) {
			t.Errorf("%q gives %v", message, got)
		}
		for _, a := range got {
			if !a.IsValid() || !slices.ContainsFunc(strings.Split(list, ","), func(s string) bool {
				written, err := netip.ParseAddr(strings.TrimSpace(s))
				return err == nil && written == a
			}) {
				t.Errorf("%q gives %v", message, a)
			}
		}
		if again := bracketed("[" + strings.Join(texts(got), ", ") + "]"); !slices.Equal(again, got) {
			t.Errorf("%q gives %v, which reads as %v", message, got, again)
		}
		err := sentinelOf("InvalidParameterValue", message)
		if strings.Contains(message, "move is not allowed") && !errors.Is(err, eni.ErrAddressInUse) {
			t.Errorf("%q is %v", message, err)
		}
		if inUse, ok := errors.AsType[*eni.InUseError](err); ok && !slices.Equal(inUse.Addrs, got) {
			t.Errorf("%q names %v, and not %v", message, inUse.Addrs, got)
		}
	})
}
