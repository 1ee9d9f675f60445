// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readYAML turns a document into maps, lists, strings, bools, int64 and float64. The short form of an intrinsic function
// becomes the long one: !Sub x is {"Fn::Sub": "x"}. Duplicate keys, anchors, second documents and unknown tags are errors.
func readYAML(data []byte) (any, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the document is empty")
		}
		return nil, err
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	return readNode("", doc.Content[0])
}

func readNode(path string, n *yaml.Node) (any, error) {
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		return nil, fmt.Errorf("line %d: %s: anchors and aliases are no part of a template", n.Line, path)
	}
	function := ""
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		f, ok := shortForms[n.Tag]
		if !ok {
			return nil, fmt.Errorf("line %d: %s: unknown function %s", n.Line, path, n.Tag)
		}
		function = f
	}
	v, err := readPlain(path, n, function != "")
	if err != nil || function == "" {
		return v, err
	}
	if s, ok := v.(string); ok && function == "Fn::GetAtt" {
		resource, attribute, found := strings.Cut(s, ".")
		if !found {
			return nil, fmt.Errorf("line %d: %s: !GetAtt wants Resource.Attribute, not %q", n.Line, path, s)
		}
		v = []any{resource, attribute}
	}
	return map[string]any{function: v}, nil
}

func readPlain(path string, n *yaml.Node, tagged bool) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
				return nil, fmt.Errorf("line %d: %s: a key must be a string", k.Line, path)
			}
			at := join(path, k.Value)
			if _, twice := m[k.Value]; twice {
				return nil, fmt.Errorf("line %d: %s: the key is there twice", k.Line, at)
			}
			v, err := readNode(at, n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[k.Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			v, err := readNode(index(path, i), c)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	default:
		if tagged {
			return n.Value, nil
		}
		return readScalar(path, n)
	}
}

// readScalar keeps what is no string a bool or a number; a date stays as it is written ("2012-10-17").
func readScalar(path string, n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case "!!int":
		if v, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return v, nil
		}
		return nil, fmt.Errorf("line %d: %s: quote %s: it reads as a number", n.Line, path, n.Value)
	case "!!float":
		return strconv.ParseFloat(n.Value, 64)
	case "!!null":
		return nil, fmt.Errorf("line %d: %s: has no value", n.Line, path)
	default:
		return n.Value, nil
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
