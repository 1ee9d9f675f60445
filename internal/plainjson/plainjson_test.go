// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package plainjson_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/plainjson"
)

func TestWriterSeparatesWhatHasToBe(t *testing.T) {
	var w plainjson.Writer
	w.Open('{')
	w.Key("a")
	w.Open('[')
	w.Close(']')
	w.Key("b\"")
	w.Open('[')
	w.String("x:")
	w.String("é\n")
	w.Open('{')
	w.Close('}')
	w.Int(-1)
	w.Uint(1 << 63)
	w.Bool(true)
	w.Text(netip.MustParseAddr("10.0.0.1"))
	w.Close(']')
	w.Close('}')
	if got, want := string(w.Bytes()), `{"a":[],"b\"":["x:","é\n",{},-1,9223372036854775808,true,"10.0.0.1"]}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOtherValuesAreRefused(t *testing.T) {
	for _, doc := range []string{`1`, `"{"`, `null`, `true`, ``} {
		if members, ok := plainjson.Object([]byte(doc)); ok {
			t.Errorf("%s is the object %v", doc, members)
		}
		if elements, ok := plainjson.Array([]byte(doc)); ok {
			t.Errorf("%s is the array %v", doc, elements)
		}
	}
	if s, ok := plainjson.String([]byte(`["a"]`)); ok {
		t.Errorf("an array is the string %q", s)
	}
	for _, doc := range []string{`1.5`, `1e3`, `"1"`, `9223372036854775808`, `null`} {
		if n, ok := plainjson.Int([]byte(doc)); ok {
			t.Errorf("%s is the int %d", doc, n)
		}
	}
}

// splitSeeds are JSON values, and what they are; empty for what only the validity of the document keeps out.
func splitSeeds() map[string]string {
	return map[string]string{
		`{"cniVersion": "1.0.0", "name":"n6","ipam" : {"type": "vpcipam", "routes": [{"dst": "10.0.0.0/8"}, null]}, "mtu": -1.5e3 , "b": true}`: "object",
		`[1, "a\"]", [[], {}], {"}": "{"}, null ]`: "array",
		` { } `: "object", `[]`: "array", `"\u00e9\\"`: "string", `"é"`: "string", `"a b"`: "string", `-7`: "int", `{"a":1,"a":2}`: "object",
		"{\"\xff\": \"\xff\"}": "object", `{"\u0061": [0]}`: "object", `1.5`: "", `null`: "", `true`: "",
	}
}

func TestSeedsOfValues(t *testing.T) {
	for doc, want := range splitSeeds() {
		got := ""
		if _, ok := plainjson.Object([]byte(doc)); ok {
			got += "object"
		}
		if _, ok := plainjson.Array([]byte(doc)); ok {
			got += "array"
		}
		if _, ok := plainjson.String([]byte(doc)); ok {
			got += "string"
		}
		if _, ok := plainjson.Int([]byte(doc)); ok {
			got += "int"
		}
		if got != want {
			t.Errorf("%s is %q, want %q", doc, got, want)
		}
	}
}

// FuzzSplit compares with encoding/json whatever is valid JSON.
func FuzzSplit(f *testing.F) {
	for seed := range splitSeeds() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if !json.Valid(doc) {
			t.Skip()
		}
		var object map[string]json.RawMessage
		isObject := json.Unmarshal(doc, &object) == nil && object != nil
		members, ok := plainjson.Object(doc)
		if ok != isObject {
			t.Fatalf("object %t, want %t", ok, isObject)
		}
		if isObject {
			got := map[string]json.RawMessage{}
			for _, m := range members {
				got[m.Key] = m.Value
			}
			if diff := cmp.Diff(object, got); diff != "" {
				t.Errorf("object (-want +got):\n%s", diff)
			}
		}
		var array []json.RawMessage
		isArray := json.Unmarshal(doc, &array) == nil && array != nil
		elements, ok := plainjson.Array(doc)
		if ok != isArray || isArray && (len(array) != len(elements) || len(array) > 0 && !reflect.DeepEqual(array, elements)) {
			t.Errorf("array %q (%t), want %q (%t)", elements, ok, array, isArray)
		}
		var s *string
		isString := json.Unmarshal(doc, &s) == nil && s != nil
		if got, ok := plainjson.String(doc); ok != isString || isString && got != *s {
			t.Errorf("string %q (%t), want %t", got, ok, isString)
		}
		var n *int
		isInt := json.Unmarshal(doc, &n) == nil && n != nil
		if got, ok := plainjson.Int(doc); ok != isInt || isInt && got != *n {
			t.Errorf("int %d (%t), want %t", got, ok, isInt)
		}
	})
}

// FuzzString holds that what is written reads the same.
func FuzzString(f *testing.F) {
	for _, seed := range []string{"", "net1", `a"\`, "é\x00\u2028", "<&>"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var w plainjson.Writer
		w.String(s)
		var want string
		text, err := json.Marshal(s)
		if err != nil || json.Unmarshal(text, &want) != nil {
			t.Fatal(err)
		}
		if got, ok := plainjson.String(w.Bytes()); !ok || got != want || !json.Valid(w.Bytes()) {
			t.Errorf("%q came back as %q, written as %s", s, got, w.Bytes())
		}
	})
}
