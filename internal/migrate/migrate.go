// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package migrate turns the network configurations that people have, upstream's ipvlan with whereabouts, host-local or static
// addresses, into those of vpcipvlan. `vpcctl migrate-nad` uses it. What it returns is accepted by the plugin's own parser; what
// could not be carried over, was guessed, or means something else now comes as notes, and what cannot be replaced is an
// error. It works on JSON alone: reading and printing files does not belong here.
package migrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// Options say what to make of a configuration.
type Options struct {
	// KeepIPAM leaves the IPAM plugin as it is, and has its addresses registered.
	KeepIPAM bool
	// ENI is the `eni` object to write, in JSON; empty means what the master's name is taken for.
	ENI json.RawMessage
	// Floating are ranges of addresses that move with the pod that carries them.
	Floating []attachment.Range
}

// Result is the configuration that replaces another.
type Result struct {
	Config []byte   // JSON, indented
	Notes  []string // what a person should know about it, each with the path of a field
	Same   bool     // it is one of ours already, and as it was
}

// migration collects notes.
type migration struct {
	Options
	notes []string
}

func (m *migration) note(format string, args ...any) {
	m.notes = append(m.notes, fmt.Sprintf(format, args...))
}

// Config makes the configuration, or list of plugins, that replaces this one of the network.
func Config(config []byte, network string, o Options) (Result, error) {
	top, err := open(config, "the configuration")
	if err != nil {
		return Result{}, err
	}
	m := &migration{Options: o}
	var out pairs
	if top["plugins"] != nil {
		out, err = m.list(top, network)
	} else {
		out, err = m.single(top, network)
	}
	if errors.Is(err, errOurs) {
		return Result{Config: config, Notes: []string{err.Error()}, Same: true}, nil
	}
	if err != nil {
		return Result{}, err
	}
	replacement, err := encode(out)
	if err != nil {
		return Result{}, err
	}
	replacement, err = pretty(replacement)
	return Result{Config: replacement, Notes: m.notes}, err
}

// errOurs says that there is nothing to replace.
var errOurs = errors.New("is for multus-vpc already, and left as it is")

// single replaces one plugin's configuration.
func (m *migration) single(top object, network string) (pairs, error) {
	head, err := m.head(top, network)
	if err != nil {
		return nil, err
	}
	body, err := m.plugin(top, "")
	if err != nil {
		return nil, err
	}
	out := append(head, body...)
	return out, accept(out)
}

// list replaces the first plugin of a list; the others stay.
func (m *migration) list(top object, network string) (pairs, error) {
	plugins, err := array(top["plugins"], "plugins")
	if err != nil {
		return nil, err
	}
	if len(plugins) == 0 {
		return nil, errors.New("plugins: is empty")
	}
	first, err := open(plugins[0], "plugins[0]")
	if err != nil {
		return nil, err
	}
	head, err := m.head(top, network)
	if err != nil {
		return nil, err
	}
	body, err := m.plugin(first, "plugins[0].")
	if err != nil {
		return nil, err
	}
	if err = accept(append(slices.Clone(head), body...)); err != nil {
		return nil, err
	}
	chain := []any{body}
	for i, p := range plugins[1:] {
		one, err := open(p, fmt.Sprintf("plugins[%d]", i+1))
		if err != nil {
			return nil, err
		}
		switch kind, _ := text(one, "", "type"); kind {
		case "ipvlan", "macvlan":
			return nil, fmt.Errorf("plugins[%d]: %s stands after another plugin, and only the first can be vpcipvlan", i+1, kind)
		case "sbr":
			m.note("plugins[%d]: sbr is kept, and no longer needed: vpcipvlan routes by source itself", i+1)
		}
		chain = append(chain, p)
	}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		switch key {
		case "cniVersion", "name", "plugins":
		default:
			head = append(head, pair{key, top[key]})
		}
	}
	return append(head, pair{"plugins", chain}), nil
}

// The versions of the specification that vpcipvlan knows.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// head is what a list and a single plugin have in common.
func (m *migration) head(top object, network string) (pairs, error) {
	version, err := text(top, "", "cniVersion")
	if err != nil {
		return nil, err
	}
	if !slices.Contains(versions, version) {
		m.note("cniVersion: %q is replaced by %q: vpcipvlan knows %s to %s", version, versions[3], versions[0], versions[len(versions)-1])
		version = versions[3]
	}
	name, err := text(top, "", "name")
	if err != nil {
		return nil, err
	}
	if name == "" { // what Multus does for a NAD
		name = network
	}
	return pairs{{"cniVersion", version}, {"name", name}}, nil
}

// accept reads the configuration as the plugin would.
func accept(config pairs) error {
	asRead, err := json.Marshal(config)
	if err != nil {
		return err
	}
	if _, err = netconf.ParseVPCIpvlan(asRead, netconf.Env{AgentSocket: "/agent.sock"}); err != nil {
		return fmt.Errorf("vpcipvlan would refuse what comes out: %w", err)
	}
	return nil
}

// plugin replaces the configuration of an interface plugin. at is its path.
func (m *migration) plugin(o object, at string) (pairs, error) {
	kind, err := text(o, at, "type")
	if err != nil {
		return nil, err
	}
	ipam, err := inner(o, at, "ipam")
	if err != nil {
		return nil, err
	}
	ipamType, err := text(ipam, at+"ipam.", "type")
	if err != nil {
		return nil, err
	}
	switch {
	case kind == netconf.TypeVPCIpvlan || ipamType == netconf.TypeVPCIPAM:
		return nil, errOurs
	case kind == "macvlan":
		return nil, fmt.Errorf("%stype: macvlan gives each pod a MAC of its own, whose frames a VPC drops; nothing that works can be replaced", at)
	case kind != "ipvlan":
		return nil, fmt.Errorf("%stype: %q is no ipvlan, and cannot be replaced", at, kind)
	}
	out := pairs{{"type", netconf.TypeVPCIpvlan}}
	selector, err := m.selector(o, at)
	if err != nil {
		return nil, err
	}
	out = append(out, selector...)
	out = append(out, m.settings(o, at)...)
	if len(m.Floating) > 0 {
		out = append(out, pair{"floating", m.Floating})
	}
	if m.KeepIPAM {
		if ipamType == "" {
			return nil, fmt.Errorf("%sipam.type: missing; without addresses there is nothing to register", at)
		}
		if ipamType == "dhcp" {
			return nil, fmt.Errorf("%sipam.type: dhcp tells clients apart by their MAC, and all pods on an ENI have the ENI's", at)
		}
		return append(out, pair{"register", true}, pair{"ipam", o["ipam"]}), nil
	}
	own, err := m.ipam(ipamType, ipam, at+"ipam.")
	if err != nil {
		return nil, err
	}
	return append(out, pair{"ipam", own}), nil
}

// onIndex and onSlot are how links are called after the device index: eth1, and by the slot of an instance on Nitro, where ens5 is
// the first. https://docs.aws.amazon.com/linux/al2023/ug/networking-service.html
var (
	onIndex = regexp.MustCompile(`^eth(\d{1,2})$`)
	onSlot  = regexp.MustCompile(`^ens(\d{1,2})$`)
	vlan    = regexp.MustCompile(`^.+\.\d{1,4}$`)
)

const firstSlot = 5

// selector says which ENI takes the place of the master.
func (m *migration) selector(o object, at string) (pairs, error) {
	master, err := text(o, at, "master")
	if err != nil {
		return nil, err
	}
	if len(m.ENI) > 0 {
		return pairs{{"eni", m.ENI}}, nil
	}
	index := -1
	if match := onIndex.FindStringSubmatch(master); match != nil {
		index, _ = strconv.Atoi(match[1]) // two digits are a number
	} else if match := onSlot.FindStringSubmatch(master); match != nil {
		index, _ = strconv.Atoi(match[1])
		index -= firstSlot
	}
	switch {
	case index > 0:
		m.note("%smaster: %q is taken for the ENI at device index %d of network card 0; see that it is, or say which by --eni", at, master, index)
		return pairs{{"eni", map[string]int{"deviceIndex": index}}}, nil
	case index == 0:
		return nil, fmt.Errorf("%smaster: %q is the worker's primary ENI, which is the cluster's own CNI plugin's; say which ENI is to be used by --eni", at, master)
	case vlan.MatchString(master):
		return nil, fmt.Errorf("%smaster: %q is a VLAN's link, and a VPC carries no VLANs; say which ENI is to be used by --eni", at, master)
	case master == "":
		m.note("%smaster: missing: upstream takes the link of the default route; the worker's only ENI for pods is taken instead", at)
		return nil, nil
	}
	m.note("%smaster: %q tells no device index, and is kept; \"eni\" would not depend on how workers name their links: see --eni", at, master)
	return pairs{{"master", master}}, nil
}

// settings are the other keys of ipvlan, and those of the specification.
func (m *migration) settings(o object, at string) (out pairs) {
	for _, key := range slices.Sorted(maps.Keys(o)) {
		value := o[key]
		switch key {
		case "type", "cniVersion", "name", "master", "ipam", "prevResult", "runtimeConfig":
		case "mode":
			if string(value) != `"l2"` && string(value) != `""` {
				m.note("%smode: %s is not carried over: only l2 works in a VPC", at, value)
			}
		case "mtu":
			if string(value) != "0" {
				out = append(out, pair{key, value})
			}
		case "capabilities":
			if kept := m.capabilities(value, at); len(kept) > 0 {
				out = append(out, pair{key, kept})
			}
		case "dns", "args", "disableCheck":
			out = append(out, pair{key, value})
		case "linkInContainer":
			if string(value) == "true" {
				m.note("%slinkInContainer: is not carried over: the ENI's link is the host's", at)
			}
		default:
			m.note("%s%s: %s is not carried over: vpcipvlan has no such key", at, key, value)
		}
	}
	return out
}

// capabilities are what the runtime may say, without what cannot be followed.
func (m *migration) capabilities(value json.RawMessage, at string) object {
	all, err := open(value, "capabilities")
	if err != nil {
		m.note("%scapabilities: %s is not carried over: it is no object", at, value)
		return nil
	}
	for key, reason := range map[string]string{
		"mac": "an ipvlan interface has its ENI's MAC", "ipRanges": "ranges belong in the configuration",
	} {
		if all[key] != nil && (key == "mac" || !m.KeepIPAM) {
			m.note("%scapabilities.%s: is not carried over: %s", at, key, reason)
			delete(all, key)
		}
	}
	return all
}
