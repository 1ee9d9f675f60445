// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// The variables of [Parse]. Those of the AWS samples have the samples' names and meaning.
const (
	VarOwner               = "Owner"        // [Config.Owner]
	VarClusterName         = "ClusterName"  // becomes the tag kubernetes.io/cluster/NAME=owned
	VarSubnetIDs           = "SubnetIds"    // subnets by device index, of any number of availability zones
	VarSubnetIDsAZ1        = "Az1SubnetIds" // more of them, as the sample for managed node groups has them
	VarSubnetIDsAZ2        = "Az2SubnetIds" // the same
	VarSecurityGroupIDs    = "SecGroupIds"  // one for all subnets, or one for each
	VarStaticIPs           = "useStaticIPs" // addressing start
	VarIPsFromStart        = "useIPsFromStartOfSubnet"
	VarTags                = "ENITags"             // k=v,k2=v2
	VarInterfaceTags       = "InterfaceTags"       // the same by the name of the template's parameter
	VarStock               = "Stock"               // [Interface.Stock] of every interface; default 0
	VarSourceDestCheck     = "SourceDestCheck"     // default false, as the samples have it
	VarDeleteOnTermination = "DeleteOnTermination" // default true
	VarInterfaces          = "Interfaces"          // JSON: the whole of it, instead of subnets and security groups
)

// Vars are the names of all variables of [Parse].
func Vars() []string {
	return []string{
		VarOwner, VarClusterName, VarSubnetIDs, VarSubnetIDsAZ1, VarSubnetIDsAZ2, VarSecurityGroupIDs, VarStaticIPs, VarIPsFromStart, VarTags,
		VarInterfaceTags, VarStock, VarSourceDestCheck, VarDeleteOnTermination, VarInterfaces,
	}
}

// Parse reads a configuration from variables, by a lookup that returns "" for what is not set, and reports all that is wrong at once.
func Parse(lookup func(name string) string) (Config, error) {
	p := parser{lookup: lookup}
	cfg := Config{Owner: p.text(VarOwner), Tags: p.tags()}
	defaults := Interface{
		Addressing: DHCP, Stock: p.number(VarStock), SourceDestCheck: p.boolean(VarSourceDestCheck, false),
		DeleteOnTermination: p.boolean(VarDeleteOnTermination, true),
	}
	static, start := p.boolean(VarStaticIPs, false), p.boolean(VarIPsFromStart, false)
	if static || start {
		defaults.Addressing = Start
	}
	if p.text(VarInterfaces) != "" {
		cfg.Interfaces = p.interfaces(defaults)
	} else {
		cfg.Interfaces = p.lists(defaults)
	}
	if err := cfg.Validate(); err != nil {
		p.errs = append(p.errs, err)
	}
	return cfg, errors.Join(p.errs...)
}

// parser collects what is wrong with variables.
type parser struct {
	lookup func(string) string
	errs   []error
}

func (p *parser) add(name, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: "+format, append([]any{name}, args...)...))
}

func (p *parser) text(name string) string { return strings.TrimSpace(p.lookup(name)) }

// list parts a value at commas; blanks and empty parts are passed over, as CloudFormation's lists may have them.
func (p *parser) list(name string) (out []string) {
	for part := range strings.SplitSeq(p.text(name), ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func (p *parser) boolean(name string, fallback bool) bool {
	switch v := strings.ToLower(p.text(name)); v {
	case "":
		return fallback
	case "true", "yes":
		return true
	case "false", "no":
		return false
	default:
		p.add(name, "%q is neither true nor false", v)
		return fallback
	}
}

func (p *parser) number(name string) int {
	v := p.text(name)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		p.add(name, "%q is no number", v)
	}
	return n
}

func (p *parser) tags() map[string]string {
	tags := map[string]string{}
	for _, name := range []string{VarTags, VarInterfaceTags} {
		for _, pair := range p.list(name) {
			k, v, ok := strings.Cut(pair, "=")
			k = strings.TrimSpace(k)
			if _, twice := tags[k]; twice {
				p.add(name, "key %q is there twice", k)
			}
			if !ok {
				p.add(name, "%q is no key=value", pair)
				continue
			}
			tags[k] = strings.TrimSpace(v)
		}
	}
	if cluster := p.text(VarClusterName); cluster != "" {
		tags["kubernetes.io/cluster/"+cluster] = "owned"
	}
	return tags
}

// lists reads subnets and security groups as the samples have them. The n-th subnet of a zone is device index n on card 0.
func (p *parser) lists(defaults Interface) (all []Interface) {
	subnets := slices.Concat(p.list(VarSubnetIDs), p.list(VarSubnetIDsAZ1), p.list(VarSubnetIDsAZ2))
	groups := p.list(VarSecurityGroupIDs)
	if len(groups) > 1 && len(groups) != len(subnets) {
		p.add(VarSecurityGroupIDs, "%d security groups for %d subnets: want one for all, or one for each", len(groups), len(subnets))
	}
	for i, s := range subnets {
		if slices.Contains(subnets[:i], s) {
			p.add(VarSubnetIDs, "%s is there twice; where that is meant, use %s", s, VarInterfaces)
		}
		n := defaults
		n.Subnet = eni.SubnetID(s)
		switch {
		case len(groups) == 1:
			n.Groups = []eni.GroupID{eni.GroupID(groups[0])}
		case i < len(groups):
			n.Groups = []eni.GroupID{eni.GroupID(groups[i])}
		}
		all = append(all, n)
	}
	return all
}

// entry is one interface in JSON. What is left out is as the other variables say.
type entry struct {
	Subnet              eni.SubnetID      `json:"subnet"`
	SubnetTags          map[string]string `json:"subnetTags"`
	SecurityGroups      []eni.GroupID     `json:"securityGroups"`
	NetworkCard         cards             `json:"networkCard"`
	DeviceIndex         *position         `json:"deviceIndex"`
	Addressing          Addressing        `json:"addressing"`
	Addresses           []netip.Addr      `json:"addresses"`
	Stock               *int              `json:"stock"`
	SourceDestCheck     *bool             `json:"sourceDestCheck"`
	DeleteOnTermination *bool             `json:"deleteOnTermination"`
}

// cards is the index of a card, or "every".
type cards struct {
	index int
	every bool
}

func (c *cards) UnmarshalJSON(b []byte) error {
	if string(b) == `"every"` {
		c.every = true
		return nil
	}
	if err := json.Unmarshal(b, &c.index); err != nil {
		return fmt.Errorf("networkCard: %s is neither a number nor \"every\"", b)
	}
	return nil
}

// position is a device index, or "last".
type position struct {
	index int
	last  bool
}

func (d *position) UnmarshalJSON(b []byte) error {
	if string(b) == `"last"` {
		d.last = true
		return nil
	}
	if err := json.Unmarshal(b, &d.index); err != nil {
		return fmt.Errorf("deviceIndex: %s is neither a number nor \"last\"", b)
	}
	return nil
}

// interfaces reads the variable of the whole list.
func (p *parser) interfaces(defaults Interface) (all []Interface) {
	for _, other := range []string{VarSubnetIDs, VarSubnetIDsAZ1, VarSubnetIDsAZ2, VarSecurityGroupIDs} {
		if p.text(other) != "" {
			p.add(other, "cannot stand with %s", VarInterfaces)
		}
	}
	all, errs := ParseInterfaces([]byte(p.text(VarInterfaces)), defaults)
	for _, err := range errs {
		p.add(VarInterfaces, "%w", err)
	}
	return all
}

// ParseInterfaces reads a list of interfaces in JSON, each laid over the defaults and read by itself, so that all mistakes are found.
func ParseInterfaces(text []byte, defaults Interface) (all []Interface, errs []error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, []error{fmt.Errorf("want a list: %w", err)}
	}
	for i, text := range raw {
		var e entry
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&e); err != nil && !errors.Is(err, io.EOF) {
			errs = append(errs, fmt.Errorf("[%d]: %w", i, err))
			continue
		}
		all = append(all, e.over(defaults))
	}
	return all, errs
}

// over lays the entry over the defaults.
func (e entry) over(n Interface) Interface {
	n.Subnet, n.SubnetTags, n.Groups, n.Card, n.EveryCard = e.Subnet, e.SubnetTags, e.SecurityGroups, e.NetworkCard.index, e.NetworkCard.every
	if e.DeviceIndex != nil {
		n.Index, n.Last = e.DeviceIndex.index, e.DeviceIndex.last
	}
	if len(e.Addresses) > 0 && e.Addressing == "" {
		e.Addressing = Fixed
	}
	if e.Addressing != "" {
		n.Addressing = e.Addressing
	}
	n.Addresses = e.Addresses
	if e.Stock != nil {
		n.Stock = *e.Stock
	}
	if e.SourceDestCheck != nil {
		n.SourceDestCheck = *e.SourceDestCheck
	}
	if e.DeleteOnTermination != nil {
		n.DeleteOnTermination = *e.DeleteOnTermination
	}
	return n
}
