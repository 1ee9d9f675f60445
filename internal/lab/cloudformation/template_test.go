// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// document puts a part of a template into a whole one.
func document(part string) string {
	if !strings.Contains(part, "Resources:") {
		part += "\nResources:\n  V: {Type: \"AWS::EC2::VPC\", Properties: {CidrBlock: 10.0.0.0/16}}"
	}
	return "AWSTemplateFormatVersion: \"2010-09-09\"\n" + part
}

func TestWhatTheLabDoesNotKnowIsRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, part, want string }{
		{"nothing", "", ""},
		{"section", "Mappings: {}", "Mappings: unknown"},
		{"second document", "Description: a\n---\nDescription: b", "more than one YAML document"},
		{"key twice", "Description: a\nDescription: b", "Description: the key is there twice"},
		{"anchor", "Description: &a b", "anchors"},
		{"tag", "Description: !Transform b", "unknown function !Transform"},
		{"null", "Description:", "Description: has no value"},
		{"attribute of a resource", "Resources: {V: {Type: T, Foo: 1}}", "Resources.V.Foo: unknown"},
		{"parameter type", "Parameters: {P: {Type: Text}}", "Parameters.P.Type: unknown parameter type Text"},
		{"default outside of the values", "Parameters: {P: {Type: String, Default: c, AllowedValues: [a, b]}}", "Parameters.P.Default: \"c\" must be one of a, b"},
		{"Ref to nowhere", "Resources: {V: {Type: T, Properties: {A: [!Ref W]}}}", "Resources.V.Properties.A[0].Ref: there is no W"},
		{"Sub to nowhere", "Resources: {V: {Type: T, Properties: {A: !Sub \"a ${W.Arn}\"}}}", "Resources.V.Properties.A.Fn::Sub: there is no W"},
		{"open Sub", "Resources: {V: {Type: T, Properties: {A: !Sub \"a ${W\"}}}", "is not closed"},
		{"DependsOn nowhere", "Resources: {V: {Type: T, DependsOn: W}}", "Resources.V.DependsOn: there is no W"},
		{"condition", "Resources: {V: {Type: T, Condition: C}}", "Resources.V.Condition: there is no condition C"},
		{"resource in a condition", "Conditions: {C: !Equals [!Ref V, a]}", "Conditions.C.Fn::Equals[0].Ref: there is no V"},
		{"long function", "Resources: {V: {Type: T, Properties: {A: {\"Fn::ImportValue\": b}}}}", "Resources.V.Properties.A.Fn::ImportValue: the lab does not know this function"},
		{"circle", "Resources: {V: {Type: T, DependsOn: W}, W: {Type: T, Properties: {A: !Ref V}}}", "depends on itself: V → W → V"},
		{"deletion policy", "Resources: {V: {Type: T, DeletionPolicy: Retain}}", "Resources.V.DeletionPolicy: the lab knows Delete only"},
		{"logical ID", "Resources: {V-1: {Type: T}}", "Resources.V-1: a logical ID has letters and digits only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(document(tc.part)))
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestWhatNobodyMakesIsRefusedBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, part, want string }{
		{"type", "Resources: {Q: {Type: \"AWS::SNS::Topic\"}, V: {Type: \"AWS::EC2::VPC\"}}", "Resources.Q.Type: the lab does not make AWS::SNS::Topic"},
		{"missing property", "Resources: {V: {Type: \"AWS::EC2::VPC\"}}", "Resources.V.Properties.CidrBlock: is missing"},
		{"bad property", "Resources: {V: {Type: \"AWS::EC2::VPC\", Properties: {CidrBlock: a}}}", "\"a\" is no CIDR"},
		{"unknown property", "Resources: {V: {Type: \"AWS::EC2::VPC\", Properties: {CidrBlock: 10.0.0.0/16, Tenancy: a}}}", "does not know Resources.V.Properties.Tenancy"},
		{"property in an object", "Resources: {V: {Type: \"AWS::EC2::VPC\", Properties: {CidrBlock: 10.0.0.0/16, Tags: [{Key: a, Valu: b}]}}}", "does not know Resources.V.Properties.Tags[0].Valu"},
		{"refused by EC2", "Resources: {V: {Type: \"AWS::EC2::VPC\", Properties: {CidrBlock: 10.0.0.0/8}}}", "InvalidVpc.Range"},
		{"no such attribute", "Outputs: {O: {Value: !GetAtt V.Foo}}", "Outputs.O.Value.Fn::GetAtt: the lab's AWS::EC2::VPC has no attribute Foo"},
		{"no such element", "Outputs: {O: {Value: !Select [3, [a, b]]}}", "Outputs.O.Value.Fn::Select: there is no element 3, the list has 2"},
		{"another Region", "Outputs: {O: {Value: !Join [a, !GetAZs eu-west-1]}}", "has the Region us-west-2 only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			parsed, err := Parse([]byte(document(tc.part)))
			if err != nil {
				t.Fatal(err)
			}
			engine, cloud, _ := lab()
			_, err = engine.Create(t.Context(), "s", parsed, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want %q", err, tc.want)
			}
			if left := len(cloud.View(time.Now()).VPCs()); left != 0 {
				t.Errorf("%d VPCs are left", left)
			}
		})
	}
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	const part = `
Parameters:
  Empty: {Type: String, Default: ""}
  Names: {Type: CommaDelimitedList, Default: "a, b"}
  Image: {Type: "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>", Default: /an/image}
Conditions:
  None: !Equals [!Ref Empty, ""]
  Some: !Not [!Condition None]
  Both: !And [!Condition None, !Condition Some]
  Either: !Or [!Condition None, !Condition Some]
Resources:
  V: {Type: "AWS::EC2::VPC", Properties: {CidrBlock: 10.0.0.0/16, Tags: !If [Some, [{Key: a, Value: b}], !Ref "AWS::NoValue"]}}
  W: {Type: "AWS::EC2::VPC", Condition: Both}
Outputs:
  Sub: {Value: !Sub ["${V.CidrBlock} ${x} ${!y} ${AWS::Region}", {x: !Ref Image}]}
  Join: {Value: !Join ["|", !Ref Names]}
  Split: {Value: !Select [1, !Split ["-", "a-b"]]}
  If: {Value: !If [Either, yes, !Ref W]}
  Base64: {Value: !Base64 abc}
  Zone: {Value: !Select ["1", !GetAZs ""]}
  Cidr: {Value: !Join [" ", !Cidr [!GetAtt V.CidrBlock, 3, 8]]}
  Cidr6: {Value: !Select [1, !Cidr ["2001:db8:0:ff00::/56", 256, 64]]}
  Hidden: {Value: !Ref W, Condition: Both}
`
	parsed, err := Parse([]byte(document(part)))
	if err != nil {
		t.Fatal(err)
	}
	engine, _, _ := lab()
	engine.cfg.Parameters = func(name string) (string, bool) { return "ami-1", name == "/an/image" }
	stack, err := engine.Create(t.Context(), "s", parsed, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"Sub": "10.0.0.0/16 ami-1 ${y} us-west-2", "Join": "a|b", "Split": "b", "If": "yes", "Base64": "YWJj", "Zone": "us-west-2b",
		"Cidr": "10.0.0.0/24 10.0.1.0/24 10.0.2.0/24", "Cidr6": "2001:db8:0:ff01::/64",
	}
	if diff := cmp.Diff(want, stack.Outputs); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

func TestBlocksThatCannotBeCut(t *testing.T) {
	t.Parallel()
	for argument, want := range map[string]string{
		`["10.0.0.0/24", 2]`:          "wants a block, a count and a number of bits",
		`["10.0.0.1/24", 2, 4]`:       `"10.0.0.1/24" is no block`,
		`["10.0.0.0/24", 0, 4]`:       "the count must be 1 to 256",
		`["10.0.0.0/24", 17, 4]`:      "10.0.0.0/24 has no 17 blocks of 4 bits",
		`["10.0.0.0/24", 1, 9]`:       "10.0.0.0/24 has no 1 blocks of 9 bits",
		`["2001:db8::/56", 2, "all"]`: "2001:db8::/56 has no 2 blocks of 0 bits",
	} {
		parsed, err := Parse([]byte(document("Resources: {V: {Type: \"AWS::EC2::VPC\", Properties: {CidrBlock: 10.0.0.0/16}}}\nOutputs: {C: {Value: !Select [0, !Cidr " + argument + "]}}\n")))
		if err != nil {
			t.Fatal(err)
		}
		engine, _, _ := lab()
		if _, err = engine.Create(t.Context(), "s", parsed, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %q", argument, err, want)
		}
	}
}

func TestParametersAreHeld(t *testing.T) {
	t.Parallel()
	const part = `
Parameters:
  Size: {Type: Number, Default: 3, MinValue: 0, MaxValue: 10}
  Name: {Type: String, AllowedPattern: "[a-z]+", MaxLength: 3, ConstraintDescription: up to three letters}
  Subnets: {Type: "List<AWS::EC2::Subnet::Id>"}
  Image: {Type: "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>", Default: /an/image}
`
	parsed, err := Parse([]byte(document(part)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		give map[string]string
		want string
	}{
		{"all well", map[string]string{}, ""},
		{"unknown", map[string]string{"Foo": "a"}, "Parameters.Foo: the template has no such parameter"},
		{"too large", map[string]string{"Size": "11"}, "Parameters.Size: \"11\" is out of range"},
		{"no number", map[string]string{"Size": "a"}, "must be a number"},
		{"pattern", map[string]string{"Name": "A"}, "must match ^(?:[a-z]+)$: up to three letters"},
		{"length", map[string]string{"Name": "abcd"}, "has the wrong length"},
		{"an ID of something else", map[string]string{"Subnets": "subnet-1,sg-1"}, "\"sg-1\" is no List<AWS::EC2::Subnet::Id>"},
		{"no subnet", map[string]string{"Subnets": ""}, "must not be empty"},
		{"no such SSM parameter", map[string]string{"Image": "/b"}, "there is no SSM parameter /b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			give := map[string]string{"Name": "a", "Subnets": "subnet-1"}
			for k, v := range tc.give {
				give[k] = v
			}
			_, err := parsed.bind(give, func(name string) (string, bool) { return "ami-1", name == "/an/image" })
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got error %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := parsed.bind(nil, nil); err == nil || !strings.Contains(err.Error(), "Parameters.Name: has no default") {
		t.Errorf("without values: got error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("../../../cfn/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(document("Conditions: {C: !Not [!Equals [a, b]]}\nOutputs: {O: {Value: !Sub \"${V} ${!w}\", Condition: C}}")))
	f.Add([]byte(document("Parameters: {P: {Type: Number, Default: 1, MinValue: 0}}\nOutputs: {O: {Value: !Join [a, [!Ref P, !GetAtt V.VpcId]]}}")))
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, err := Parse(data)
		if err != nil {
			return
		}
		if len(parsed.order) != len(parsed.Resources) {
			t.Errorf("%d of %d resources are in order", len(parsed.order), len(parsed.Resources))
		}
		if _, err := json.Marshal(parsed.Resources); err != nil {
			t.Errorf("what was read is no JSON: %v", err)
		}
	})
}
