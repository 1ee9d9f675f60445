// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chart

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// readValues reads a YAML or JSON file.
func readValues(t *testing.T, path string) object {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	var o object
	must(t, yaml.UnmarshalStrict(text, &o))
	return o
}

// leaves are the values that a user sets, by path: those that the schema takes apart no further, and in agent.config, which is the
// agent's own file, none.
func leaves(prefix string, schema object) (all []string) {
	properties, _ := schema["properties"].(object)
	if prefix == "agent.config" || properties == nil || prefix == "injector.podResources" || strings.HasSuffix(prefix, ".issuerRef") || strings.HasSuffix(prefix, ".seLinuxOptions") {
		return []string{prefix}
	}
	for key, inner := range properties {
		all = append(all, leaves(strings.TrimPrefix(prefix+"."+key, "."), inner.(object))...)
	}
	return all
}

// resolve replaces references, which is all that the schema has of them.
func resolve(v any, definitions object) any {
	switch v := v.(type) {
	case object:
		if ref, ok := v["$ref"].(string); ok {
			return resolve(definitions[filepath.Base(ref)], definitions)
		}
		out := object{}
		for key, inner := range v {
			out[key] = resolve(inner, definitions)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = resolve(inner, definitions)
		}
		return out
	}
	return v
}

func readSchema(t *testing.T) object {
	t.Helper()
	raw := readValues(t, chartDir+"/values.schema.json")
	definitions := raw["definitions"].(object)
	return resolve(raw, definitions).(object)
}

var valueRow = regexp.MustCompile("(?m)^\\| `([a-zA-Z.]+)` \\| (.*?) \\| ")

// TestValuesAreDocumented: the schema, values.yaml and the tables of README.md name the same values, and the tables their defaults.
func TestValuesAreDocumented(t *testing.T) {
	t.Parallel()
	want := slices.DeleteFunc(leaves("", readSchema(t)), func(p string) bool { return p == "global" }) // which Helm itself may add
	slices.Sort(want)
	readme, err := os.ReadFile(chartDir + "/README.md")
	must(t, err)
	defaults := readValues(t, chartDir+"/values.yaml")
	var documented, there []string
	for _, path := range want {
		if _, ok := lookUp(defaults, path); ok {
			there = append(there, path)
		}
	}
	for _, m := range valueRow.FindAllStringSubmatch(string(readme), -1) {
		documented = append(documented, m[1])
		told := strings.Trim(m[2], "`")
		if m[1] == "agent.affinity" {
			continue // told in words
		}
		var value any
		must(t, yaml.Unmarshal([]byte(told), &value))
		if actual, _ := lookUp(defaults, m[1]); !cmp.Equal(value, actual) {
			t.Errorf("README.md: the default of %s is %v, not %v", m[1], actual, value)
		}
	}
	slices.Sort(documented)
	if diff := cmp.Diff(want, documented); diff != "" {
		t.Errorf("README.md (-schema +tables):\n%s", diff)
	}
	if diff := cmp.Diff(want, there); diff != "" {
		t.Errorf("values.yaml (-schema +file):\n%s", diff)
	}
	if diff := cmp.Diff(paths("", defaults, want), want); diff != "" {
		t.Errorf("values.yaml (-file +schema):\n%s", diff)
	}
}

// lookUp follows a path through values.
func lookUp(values object, path string) (any, bool) {
	var v any = values
	for key := range strings.SplitSeq(path, ".") {
		o, ok := v.(object)
		if !ok {
			return nil, false
		}
		if v, ok = o[key]; !ok {
			return nil, false
		}
	}
	return v, true
}

// paths are those of a file of values, down to leaves.
func paths(prefix string, v any, leaves []string) (all []string) {
	o, ok := v.(object)
	if !ok || slices.Contains(leaves, prefix) {
		return []string{prefix}
	}
	for _, key := range slices.Sorted(maps.Keys(o)) {
		all = append(all, paths(strings.TrimPrefix(prefix+"."+key, "."), o[key], leaves)...)
	}
	slices.Sort(all)
	return all
}

// TestTheSchemaIsStrict: each object in it either lists its keys and takes no others, or says that it is Kubernetes' or the user's.
func TestTheSchemaIsStrict(t *testing.T) {
	t.Parallel()
	open := map[string]bool{ // which Kubernetes or the plugin judges
		"global": true, "agent.affinity": true, "agent.tolerations[]": true, "agent.updateStrategy": true, "agent.resources": true,
		"injector.affinity": true, "injector.tolerations[]": true, "injector.resources": true,
		"sweep.affinity": true, "sweep.tolerations[]": true, "sweep.resources": true, "networks[].config": true,
	}
	found := 0
	var check func(path string, schema object)
	check = func(path string, schema object) {
		if schema["type"] == "array" {
			check(path+"[]", schema["items"].(object))
		}
		if schema["type"] != "object" {
			return
		}
		found++
		if schema["additionalProperties"] == nil != open[path] {
			t.Errorf("%s: additionalProperties %v", path, schema["additionalProperties"])
		}
		properties, _ := schema["properties"].(object)
		for key, inner := range properties {
			check(strings.TrimPrefix(path+"."+key, "."), inner.(object))
		}
	}
	check("", readSchema(t))
	if found < 40 {
		t.Errorf("found only %d objects", found)
	}
}

// TestWrongValuesAreRefused: by Helm, before it does anything, in words that name the value.
func TestWrongValuesAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ values, want string }{
		"no image":                            {`{}`, "make images IMAGE="},
		"a misspelt part":                     {`{agents: {}}`, "additional properties 'agents' not allowed"},
		"a misspelt value":                    {`{agent: {nodeselector: {}}}`, "at '/agent': additional properties 'nodeselector' not allowed"},
		"a key of the agent's file beside it": {`{agent: {warmIPTarget: 3}}`, "at '/agent': additional properties 'warmIPTarget' not allowed"},
		"a misspelt key of the agent's file":  {`{agent: {config: {warmIpTarget: 3}}}`, "at '/agent/config': additional properties 'warmIpTarget' not allowed"},
		"a misspelt key of an interface":      {`{agent: {config: {interfaces: [{subnetTag: {}}]}}}`, "at '/agent/config/interfaces/0': additional properties 'subnetTag' not allowed"},
		"interfaces that outlive the worker":  {`{agent: {config: {interfaces: [{deleteOnTermination: false}]}}}`, "/agent/config/interfaces/0/deleteOnTermination"},
		"a number that is a text":             {`{agent: {env: {A: 1}}}`, "at '/agent/env/A': got number, want string"},
		"a way to EC2 that does not exist":    {`{injector: {via: imds}}`, "at '/injector/via': value must be one of 'agent', 'ec2'"},
		"a network without a configuration":   {`{networks: [{name: n6}]}`, "at '/networks/0': missing property 'config'"},
		"a network's configuration as text":   {`{networks: [{name: n6, config: "{}"}]}`, "at '/networks/0/config': got string, want object"},
		"a folder that is no absolute path":   {`{agent: {stateDir: var/lib}}`, "at '/agent/stateDir'"},
		"an image with its tag":               {`{image: {repository: "registry/multus-vpc:1"}}`, "at '/image/repository'"},
		"cert-manager without an issuer":      {`{image: {repository: a}, injector: {enabled: true, certManager: {enabled: true}}}`, "injector.certManager.issuerRef is not set"},
		"a digest that is none":               {`{image: {digest: latest}}`, "at '/image/digest'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "values.yaml")
			must(t, os.WriteFile(file, []byte(c.values), 0o600))
			out, err := newHelm(t).try("template", "multus-vpc", chartDir, "--values", file)
			switch {
			case err == nil:
				t.Errorf("rendered:\n%s", out)
			case !strings.Contains(err.Error(), c.want):
				t.Errorf("%v\nwant %q", err, c.want)
			}
		})
	}
}

var tag = regexp.MustCompile(`json:"([A-Za-z]+)(?:,omitempty)?"`)

// TestTheAgentsFileIsTheSchemas: the keys of agent.config are the agent's.
func TestTheAgentsFileIsTheSchemas(t *testing.T) {
	t.Parallel()
	for path, file := range map[string]string{
		"agent.config": "agent/file.go", "agent.config.sync": "agent/sync.go", "agent.config.interfaces[]": "internal/workereni/parse.go",
	} {
		source, err := os.ReadFile(filepath.Join(root, file))
		must(t, err)
		var keys []string
		for _, m := range tag.FindAllStringSubmatch(string(source), -1) {
			keys = append(keys, m[1])
		}
		var schema any = readSchema(t)
		for key := range strings.SplitSeq(path, ".") {
			name, list := strings.CutSuffix(key, "[]")
			schema = at(t, schema, "properties", name)
			if list {
				schema = at(t, schema, "items")
			}
		}
		slices.Sort(keys)
		if diff := cmp.Diff(keys, slices.Sorted(maps.Keys(at(t, schema, "properties").(object)))); diff != "" {
			t.Errorf("%s (-%s +schema):\n%s", path, file, diff)
		}
	}
}

// TestLint: Helm's own opinion.
func TestLint(t *testing.T) {
	t.Parallel()
	h := newHelm(t)
	for _, values := range valueFiles(t) {
		h.must("lint", "--strict", chartDir, "--values", values)
	}
	h.must("lint", "--strict", chartDir)
}
