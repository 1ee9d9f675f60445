// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/plainjson"
)

// Document is a network configuration that is a JSON object, about which nothing else is known yet.
type Document struct{ fields map[string]json.RawMessage }

// Open parses a network configuration. Its error is [Problems].
func Open(doc []byte) (Document, error) {
	const remedy = "; correct config of the NetworkAttachmentDefinition"
	r := &reader{}
	if !json.Valid(doc) {
		var any json.RawMessage
		r.add(types.ErrDecodingFailure, "", "the network configuration is not JSON: %v"+remedy, json.Unmarshal(doc, &any))
		return Document{}, r.err()
	}
	fields, ok := split(doc)
	if !ok {
		r.add(types.ErrDecodingFailure, "", "the network configuration is not a JSON object: %s"+remedy, show(doc))
	}
	return Document{fields}, r.err()
}

// split takes an object apart; of a key that is given twice the last counts.
func split(valid []byte) (map[string]json.RawMessage, bool) {
	members, ok := plainjson.Object(valid)
	if !ok {
		return nil, false
	}
	fields := make(map[string]json.RawMessage, len(members))
	for _, m := range members {
		fields[m.Key] = m.Value
	}
	return fields, true
}

func (d Document) object(r *reader) object { return object{r: r, fields: d.fields} }

// Name is the network's, empty when there is none; ok is false when it is not a string.
func (d Document) Name() (name string, ok bool) { return d.text("name") }

// CNIVersion is that of the specification which the configuration follows, 0.1.0 when it says nothing; ok is false when it
// is not a string.
func (d Document) CNIVersion() (version string, ok bool) {
	if version, ok = d.text("cniVersion"); ok && version == "" {
		version = "0.1.0"
	}
	return version, ok
}

func (d Document) text(key string) (string, bool) {
	r := &reader{}
	return d.object(r).text(key), len(r.problems) == 0
}

// PrevResult is the result of ADD for CHECK, or of the plugin before this one in a chain, as it came; nil without one.
func (d Document) PrevResult() json.RawMessage { return d.object(&reader{}).raw("prevResult") }

// ParseVPCIPAM is [Open] and [Document.VPCIPAM].
func ParseVPCIPAM(doc []byte, env Env) (VPCIPAM, error) {
	d, err := Open(doc)
	if err != nil {
		return VPCIPAM{}, err
	}
	return d.VPCIPAM(env)
}

// ParseVPCIpvlan is [Open] and [Document.VPCIpvlan].
func ParseVPCIpvlan(doc []byte, env Env) (VPCIpvlan, error) {
	d, err := Open(doc)
	if err != nil {
		return VPCIpvlan{}, err
	}
	return d.VPCIpvlan(env)
}

// VPCIPAM reads the configuration of vpcipam for ADD, CHECK and STATUS. Its error is [Problems].
func (d Document) VPCIPAM(env Env) (VPCIPAM, error) {
	r := &reader{}
	top := d.object(r)
	c := VPCIPAM{CNIVersion: top.text("cniVersion"), Name: top.text("name")}
	runtime := r.runtime(top, env)
	c.Pod = runtime.pod()
	outer := top.text("type")
	c.Target = r.target(top)
	switch outer {
	case typeIpvlan:
		r.underIpvlan(top, c.Target)
	case "macvlan":
		r.invalid("type", `"macvlan" cannot carry VPC addresses: EC2 drops frames whose MAC is not the ENI's; use "vpcipvlan" or "ipvlan"`)
	case TypeVPCIpvlan:
		r.ipvlanMode(top)
	}
	ipam, found := top.object("ipam")
	if kind := r.ipamType(top, ipam); kind != "" && kind != TypeVPCIPAM {
		r.invalid("ipam.type", `%q was given to vpcipam; write "vpcipam"`, kind)
	}
	if found {
		c.IPAM = r.ipam(ipam, runtime, env)
	}
	return c, r.err()
}

// VPCIpvlan reads the configuration of vpcipvlan for ADD, CHECK and STATUS. Its error is [Problems].
func (d Document) VPCIpvlan(env Env) (VPCIpvlan, error) {
	r := &reader{}
	top := d.object(r)
	runtime := r.runtime(top, env)
	c := VPCIpvlan{
		CNIVersion:    top.text("cniVersion"),
		Name:          top.text("name"),
		SourceRouting: top.flag("sourceRouting", true),
		Pod:           runtime.pod(),
		Target:        r.target(top),
	}
	top.only(ipvlanKeys, ofRuntime)
	c.MTU = r.mtu(top)
	r.ipvlanMode(top)
	c.Floating = r.ranges(top, "floating")
	if dns, found := top.object("dns"); found {
		c.DNS = r.dns(dns)
	}
	ipam, found := top.object("ipam")
	c.IPAMType = r.ipamType(top, ipam)
	if found && c.IPAMType == TypeVPCIPAM {
		c.IPAM = r.ipam(ipam, runtime, env)
	} else {
		c.IPAM = IPAM{AgentSocket: r.socket(object{}, env), Timeout: DefaultTimeout}
	}
	c.Register, c.OnConflict = r.register(top, c.IPAMType)
	if c.Floating != nil && !c.Register && c.IPAMType != TypeVPCIPAM {
		r.invalid("floating", `is not possible with "register": false: the agent does not know the interface`)
	}
	return c, r.err()
}

// register reads what concerns the addresses of another IPAM plugin.
func (r *reader) register(top object, ipamType string) (register bool, conflict attachment.OnConflict) {
	register = top.flag("register", true)
	conflict = attachment.OnConflict(top.text("onConflict"))
	switch conflict {
	case "":
		conflict = attachment.WaitThenReassign
	case attachment.WaitThenReassign, attachment.Never, attachment.Reassign:
	default:
		r.invalid("onConflict", "%q is unknown; use %q, %q or %q", conflict, attachment.WaitThenReassign, attachment.Never, attachment.Reassign)
	}
	if ipamType != TypeVPCIPAM {
		if !register && top.has("onConflict") {
			r.invalid("onConflict", `is not possible with "register": false`)
		}
		return register, conflict
	}
	if !register {
		r.invalid("register", "false is not possible with ipam.type %q, whose addresses are EC2's; remove the key", TypeVPCIPAM)
	}
	if top.has("onConflict") {
		r.invalid("onConflict", "is for addresses of another IPAM plugin; with ipam.type %q remove the key", TypeVPCIPAM)
	}
	return false, ""
}
