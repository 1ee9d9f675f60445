// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

var comparable = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

// fill sets every field that can be set, those of a later version of the type included.
func fill(v reflect.Value, rng *rand.Rand) {
	switch x := v.Addr().Interface().(type) {
	case *netip.Addr:
		*x = netip.AddrFrom4([4]byte{10, 0, byte(rng.Int()), 1})
		return
	case *netip.Prefix:
		*x = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 15: byte(rng.Int())}), 64)
		return
	case *attachment.Range:
		from := netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(100))})
		*x = attachment.Range{From: from, To: from.Next()}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), rng)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), rng)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), rng)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k\"": "é", "multus": "1"}))
	case reflect.String:
		v.SetString([]string{"net1", "a\\b", "é<>\n"}[rng.IntN(3)])
	case reflect.Int, reflect.Int64:
		v.SetInt(rng.Int64N(1 << 40))
	case reflect.Uint64:
		v.SetUint(rng.Uint64())
	case reflect.Bool:
		v.SetBool(true)
	}
}

func TestRequestsAreEncodedWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	requests := []Request{{}, {Version: 1, Method: MethodDel, Attachment: &attachment.Attachment{}, Query: &attachment.Query{}}}
	for range 50 {
		var r Request
		fill(reflect.ValueOf(&r).Elem(), rng)
		requests = append(requests, r)
	}
	for _, want := range requests {
		var got Request
		if err := json.Unmarshal(encode(want), &got); err != nil {
			t.Fatalf("%v: %s", err, encode(want))
		}
		if diff := cmp.Diff(want, got, comparable); diff != "" {
			t.Fatalf("request (-want +got):\n%s", diff)
		}
	}
}

func TestAnswersAreDecodedWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 50 {
		want := Response{Version: 1, Add: &AddReply{}}
		switch i {
		case 0:
			want.Add = nil
		case 1:
		case 2:
			want = Response{Error: &Error{Code: 11, Message: "m", Details: "d"}}
		case 3:
			want = Response{Status: &Status{AZ: "us-west-2a"}}
		default:
			fill(reflect.ValueOf(want.Add).Elem(), rng)
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, comparable); diff != "" {
			t.Fatalf("response (-want +got):\n%s", diff)
		}
		if plain := (i < 2 || i > 3); decodePlain(text, &Response{}) != plain {
			t.Errorf("%s: taken field by field: %t, want %t", text, !plain, plain)
		}
	}
}

// decodeSeeds are responses, and whether each is decoded field by field.
func decodeSeeds() map[string]bool {
	return map[string]bool{
		`{"version":1,"add":{"eni":{"id":"eni-1","mac":"0a:00:00:00:00:01","deviceIndex":1,"subnetID":"s","subnetIPv4":"10.10.1.0/24",` +
			`"link":{"name":"eth1","index":2,"mtu":1500,"up":true}},"addresses":["10.10.1.70/24"]}}`: true,
		`{"version":1}`: true, `{"version":"1"}`: false, `{"version":1,"error":{"code":7,"msg":"no"}}`: false, `{"add":{"addresses":[null]}}`: false,
		`{"add":null}`: false, `{"version":1,"later":[]}`: false, `[]`: false, `null`: false, `{"add":{"eni":{"link":{"up":1}}}}`: false,
		`{"add":{"eni":{"subnetIPv6":["2001:db8::/64"]}}}`: true,
	}
}

func TestSeedsOfAnswers(t *testing.T) {
	for message, want := range decodeSeeds() {
		if got := decodePlain([]byte(message), &Response{}); got != want {
			t.Errorf("%s: decoded field by field: %t, want %t", message, got, want)
		}
	}
}

// FuzzDecode holds that whatever a response says, it says the same to encoding/json.
func FuzzDecode(f *testing.F) {
	for seed := range decodeSeeds() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if !json.Valid(message) {
			t.Skip()
		}
		var plain Response
		if !decodePlain(message, &plain) {
			return
		}
		var want Response
		if err := json.Unmarshal(message, &want); err != nil {
			t.Fatalf("accepted %s: %v", message, err)
		}
		if diff := cmp.Diff(want, plain, comparable); diff != "" {
			t.Errorf("response (-want +got):\n%s", diff)
		}
	})
}

func TestReceiveReadsOneMessage(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", 10_000) + "\"}\n"
	for in, want := range map[string]error{
		"{}\n": nil, "{}": nil, long: nil, "": io.EOF, " \n": io.EOF, `{"a":`: io.ErrUnexpectedEOF, "{\"a\":\n": io.ErrUnexpectedEOF,
	} {
		got, err := receive(iotest.HalfReader(strings.NewReader(in)))
		if !errors.Is(err, want) || err == nil && string(got) != in {
			t.Errorf("%.20q: got %.20q, error %v, want %v", in, got, err, want)
		}
	}
	var syntax *json.SyntaxError
	if _, err := receive(strings.NewReader("hello\n")); !errors.As(err, &syntax) {
		t.Errorf("no JSON: %v", err)
	}
}
