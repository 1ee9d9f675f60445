// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command refresh writes test/cfn/testdata/schemas.json: what the published schemas say about the resource types that the
// templates of cfn/ use. scripts/refresh-cfn-schemas.sh gives it the data of the npm package @aws-cdk/aws-service-spec,
// which AWS builds from CloudFormation's registry. It reads that package's format; judging templates by what it writes is
// the job of the tests beside it.
package main

import (
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
)

func main() {
	db := flag.String("db", "", "db.json.gz of the package")
	version := flag.String("version", "", "version of the package")
	out := flag.String("out", "test/cfn/testdata/schemas.json", "file to write")
	flag.Parse()
	if err := run(*db, *version, *out); err != nil {
		fmt.Fprintln(os.Stderr, "refresh:", err)
		os.Exit(1)
	}
}

// database is the part of the package's data that is read. Entities have an ID, which references name.
type database struct {
	Schema struct {
		Resource struct {
			Entities []struct {
				CloudFormationType string              `json:"cloudFormationType"`
				Properties         map[string]property `json:"properties"`
				Attributes         map[string]property `json:"attributes"`
			} `json:"entities"`
		} `json:"resource"`
		TypeDefinition struct {
			Entities []struct {
				ID         string              `json:"$id"`
				Name       string              `json:"name"`
				Properties map[string]property `json:"properties"`
			} `json:"entities"`
		} `json:"typeDefinition"`
	} `json:"schema"`
}

type property struct {
	Type     typ  `json:"type"`
	Required bool `json:"required"`
}

type typ struct {
	Type          string `json:"type"`
	Element       *typ   `json:"element"`
	Types         []typ  `json:"types"`
	AllowedValues []any  `json:"allowedValues"`
	Reference     struct {
		Ref string `json:"$ref"`
	} `json:"reference"`
}

// object and shape are what is written; test/cfn/schema_test.go reads them.
type object struct {
	Properties map[string]shape `json:"properties"`
	Attributes []string         `json:"attributes,omitempty"`
}

type shape struct {
	Type     string  `json:"type"`
	Required bool    `json:"required,omitempty"`
	Element  *shape  `json:"element,omitempty"`
	OneOf    []shape `json:"oneOf,omitempty"`
	Values   []any   `json:"values,omitempty"`
	Of       string  `json:"of,omitempty"` // the definition of an object
}

type trimmed struct {
	Source      string            `json:"source"`
	Version     string            `json:"version"`
	Types       map[string]object `json:"types"`
	Definitions map[string]object `json:"definitions"`
}

func run(db, version, out string) error {
	wanted, err := usedTypes("cfn")
	if err != nil {
		return err
	}
	data, err := read(db)
	if err != nil {
		return err
	}
	t := &trimmer{names: map[string]string{}, bodies: map[string]map[string]property{}, out: trimmed{
		Source: "https://www.npmjs.com/package/@aws-cdk/aws-service-spec", Version: version,
		Types: map[string]object{}, Definitions: map[string]object{},
	}}
	for _, d := range data.Schema.TypeDefinition.Entities {
		t.names[d.ID], t.bodies[d.ID] = d.Name, d.Properties
	}
	for _, r := range data.Schema.Resource.Entities {
		if !slices.Contains(wanted, r.CloudFormationType) {
			continue
		}
		o := t.object(r.CloudFormationType, r.Properties)
		for a := range r.Attributes {
			o.Attributes = append(o.Attributes, a)
		}
		slices.Sort(o.Attributes)
		t.out.Types[r.CloudFormationType] = o
	}
	for _, w := range wanted {
		if _, ok := t.out.Types[w]; !ok {
			return fmt.Errorf("there is no resource type %s", w)
		}
	}
	text, err := json.MarshalIndent(t.out, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(text, '\n'), 0o644)
}

// usedTypes returns the resource types of the templates in a folder.
func usedTypes(folder string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var types []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		t, err := cloudformation.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		for _, r := range t.Resources {
			types = append(types, r.Type)
		}
	}
	slices.Sort(types)
	return slices.Compact(types), nil
}

func read(file string) (*database, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var d database
	if err := json.NewDecoder(z).Decode(&d); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return &d, nil
}

// trimmer follows references from the wanted types.
type trimmer struct {
	names  map[string]string
	bodies map[string]map[string]property
	out    trimmed
}

// object trims a body; prefix is the resource type, in whose name space its definitions are.
func (t *trimmer) object(prefix string, body map[string]property) object {
	o := object{Properties: map[string]shape{}}
	for name, p := range body {
		s := t.shape(prefix, p.Type)
		s.Required = p.Required
		o.Properties[name] = s
	}
	return o
}

func (t *trimmer) shape(prefix string, in typ) shape {
	s := shape{Type: in.Type, Values: in.AllowedValues}
	if in.Element != nil {
		e := t.shape(prefix, *in.Element)
		s.Element = &e
	}
	for _, one := range in.Types {
		s.OneOf = append(s.OneOf, t.shape(prefix, one))
	}
	if id := in.Reference.Ref; id != "" {
		s.Type, s.Of = "object", prefix+"."+t.names[id]
		if _, known := t.out.Definitions[s.Of]; !known {
			t.out.Definitions[s.Of] = object{} // before its body: definitions may be recursive
			t.out.Definitions[s.Of] = t.object(prefix, t.bodies[id])
		}
	}
	return s
}
