// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package docs

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// env is what reaches a plugin on a worker without settings of its own.
var env = netconf.Env{AgentSocket: "/run/multus-vpc/agent/agent.sock"}

func TestExampleNADsAreAccepted(t *testing.T) {
	t.Parallel()
	paths := files(t, "examples/nad/*.yaml")
	if len(paths) == 0 {
		t.Fatal("found no examples")
	}
	index := read(t, "examples/nad/README.md")
	for _, file := range paths {
		var nad struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct {
				Name        string            `json:"name"`
				Namespace   string            `json:"namespace"`
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
			Spec struct {
				Config string `json:"config"`
			} `json:"spec"`
		}
		if err := yaml.UnmarshalStrict([]byte(read(t, file)), &nad); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if nad.APIVersion != "k8s.cni.cncf.io/v1" || nad.Kind != "NetworkAttachmentDefinition" || nad.Metadata.Name == "" {
			t.Errorf("%s is no NetworkAttachmentDefinition", file)
		}
		ours := 1
		if nad.Metadata.Annotations["multus-vpc.io/sync"] != "" { // upstream's plugins, and a container of ours in the pods
			ours = 0
		}
		if err := acceptAs(nad.Spec.Config, nad.Metadata.Name, ours); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if name := path.Base(file); !strings.Contains(index, "("+name+")") {
			t.Errorf("%s is not listed in examples/nad/README.md", file)
		}
	}
}

func TestNADsInDocumentsAreAccepted(t *testing.T) {
	t.Parallel()
	found := 0
	for _, d := range documents(t) {
		for _, config := range d.code("json nad") {
			found++
			if err := accept(config, ""); err != nil {
				t.Errorf("%s: %v\n%s", d.path, err, config)
			}
		}
	}
	if found < 3 {
		t.Errorf("found only %d", found)
	}
}

// accept reads a configuration, or a list of them, as the plugins do.
func accept(config, name string) error { return acceptAs(config, name, 1) }

// acceptAs is accept for one of which so many plugins are ours.
func acceptAs(config, name string, want int) error {
	var list struct {
		CNIVersion string            `json:"cniVersion"`
		Name       string            `json:"name"`
		Plugins    []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(config), &list); err != nil {
		return err
	}
	if list.CNIVersion == "" || list.Name == "" || name != "" && list.Name != name {
		return fmt.Errorf("cniVersion %q, name %q, want both, and the name %q of the NAD", list.CNIVersion, list.Name, name)
	}
	if list.Plugins == nil {
		list.Plugins = []json.RawMessage{json.RawMessage(config)}
	}
	ours := 0
	for _, plugin := range list.Plugins {
		read, err := acceptPlugin(plugin)
		if err != nil {
			return err
		}
		if read {
			ours++
		}
	}
	if ours != want {
		return fmt.Errorf("%d of its plugins are ours, want %d", ours, want)
	}
	return nil
}

// acceptPlugin reads one plugin's configuration, if it is ours to read.
func acceptPlugin(config []byte) (ours bool, err error) {
	var c struct {
		Type string `json:"type"`
		IPAM struct {
			Type string `json:"type"`
		} `json:"ipam"`
	}
	if err = json.Unmarshal(config, &c); err != nil {
		return false, err
	}
	switch {
	case c.Type == netconf.TypeVPCIpvlan:
		_, err = netconf.ParseVPCIpvlan(config, env)
	case c.IPAM.Type == netconf.TypeVPCIPAM:
		_, err = netconf.ParseVPCIPAM(config, env)
	default:
		return false, nil
	}
	return true, err
}

// TestKeysAreThePlugins compares the tables of keys with the lists that the configuration is checked against.
func TestKeysAreThePlugins(t *testing.T) {
	t.Parallel()
	source := read(t, "internal/netconf/netconf.go")
	keys := func(name string) []string {
		list := regexp.MustCompile(`(?s)\b` + name + `\s+= \[\]string\{(.*?)\}`).FindStringSubmatch(source)
		if list == nil {
			t.Fatalf("internal/netconf/netconf.go has no list %s", name)
		}
		return strings.FieldsFunc(list[1], func(r rune) bool { return strings.ContainsRune("\", \n\t", r) })
	}
	ipvlan := document{"plugins/vpcipvlan/README.md", read(t, "plugins/vpcipvlan/README.md")}
	section := ipvlan.section(t, "## Keys")
	inENI := ipvlan.section(t, "### `eni`")
	top := slices.DeleteFunc(firstColumn(section), func(key string) bool { return slices.Contains(firstColumn(inENI), key) })
	same(t, "keys of vpcipvlan", top, keys("ipvlanKeys"))
	same(t, "keys of eni", firstColumn(inENI), keys("eniKeys"))
	ipam := document{"plugins/vpcipam/README.md", read(t, "plugins/vpcipam/README.md")}
	same(t, "keys of vpcipam", firstColumn(ipam.section(t, "## Keys")), keys("ipamKeys"))
	for _, key := range slices.Concat(keys("routeKeys"), keys("dnsKeys")) {
		if !strings.Contains(ipam.text, "`"+key+"`") {
			t.Errorf("%s does not name the key %s", ipam.path, key)
		}
	}
}
