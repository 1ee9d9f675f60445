// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package netconf is the JSON that users write in a NetworkAttachmentDefinition for the two CNI plugins: parse,
// default, validate everything, and hand over a typed value. The plugins use it, and so does every tool that reads or
// writes such a configuration. An accepted configuration is complete and needs no further checks of its own values; a
// refused one comes with every problem at once, each with its field path and CNI error code. It performs no IO: what
// comes from the environment is passed in as [Env]. Whether an ENI, a link or an address exists is not decided here.
package netconf

import (
	"net/netip"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// The plugins' type names.
const (
	TypeVPCIPAM   = "vpcipam"
	TypeVPCIpvlan = "vpcipvlan"
)

// typeIpvlan is the upstream plugin that vpcipam also serves.
const typeIpvlan = "ipvlan"

// Defaults and bounds of values.
const (
	// DefaultTimeout of an ADD: the agent waits up to 15 s for EC2, and its answer must still arrive.
	DefaultTimeout = 20 * time.Second

	// MinTimeout leaves an ADD room for one exchange with the agent, MaxTimeout stays below the 4 minutes that kubelet
	// grants all attachments of a pod together.
	MinTimeout = time.Second
	MaxTimeout = 3 * time.Minute

	// maxSocketPath is sizeof(sockaddr_un.sun_path) less the closing zero (unix(7)).
	maxSocketPath = 107
	// minMTU is IPv4's (RFC 791), maxMTU that of an ENI.
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/network_mtu.html
	minMTU, maxMTU = 68, 9001
)

// Env is what reaches a plugin beside its standard input.
type Env struct {
	Args        string // CNI_ARGS
	AgentSocket string // MULTUS_VPC_AGENT_SOCKET, or the agent's default; the configuration's agentSocket goes before it
}

// IPAM is the `ipam` object of type vpcipam.
type IPAM struct {
	// Source of the addresses: "reservation" (default: out of explicit reservations), "prefix" (out of delegated prefixes)
	// or "subnet" (EC2 chooses).
	Source string
	// Families of addresses that each attachment gets, one of each: ["ipv4"] (default), ["ipv6"] or both. Those of
	// Requested when there are any.
	Families []string
	// ReservationTags are tags that a reservation must carry, all of them, for its addresses to be given.
	ReservationTags map[string]string
	// Ranges are where the addresses of their family must come from, Exclude is where none is to come from.
	Ranges, Exclude []attachment.Range
	// Requested are the addresses to have, at most one of each family: of `runtimeConfig.ips`, `args.cni.ips`, CNI_ARGS IP
	// and `addresses` the first that names any. They need not lie in Ranges, and may lie in Exclude.
	Requested []netip.Addr
	// Sticky gives a StatefulSet's pods the addresses at their ordinals in Ranges; nil when not asked for.
	Sticky *attachment.Sticky
	// Gateways of the interface's default routes, at most one of each family; without one it is the subnet's own router.
	Gateways []netip.Addr
	// Routes to install. nil when the user said nothing, which a pod's first interface answers by a default route;
	// empty when the user asked for none.
	Routes []Route
	// DNS settings to report in the result.
	DNS types.DNS
	// AgentSocket is the path of the agent's socket (default [Env.AgentSocket]).
	AgentSocket string
	// Timeout of the exchange with the agent (default [DefaultTimeout]; "500ms", "20s").
	Timeout time.Duration
}

// Query asks for what the configuration says, on the ENI that is selected.
func (c IPAM) Query(selected eni.Selector) attachment.Query {
	return attachment.Query{
		Selector: selected, Families: c.Families, Source: c.Source, ReservationTags: c.ReservationTags,
		Ranges: c.Ranges, Exclude: c.Exclude, Requested: c.Requested, Sticky: c.Sticky,
	}
}

// Route is one entry of `routes`.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr // invalid means the interface's gateway
	MTU     int        // 0: the interface's
	AdvMSS  int        // 0: the kernel's choice
	// Priority is the route's metric; 0 is the kernel's default.
	Priority int
	// Table, when set, is where the route goes instead of the tables that the plugin chooses.
	Table *int
	// Scope, when set, is the route's (rtnetlink(7)).
	Scope *int
}

// IsDefault reports whether the route covers a whole address family.
func (r Route) IsDefault() bool { return r.Dst.Bits() == 0 }

// Target says on which ENI an attachment goes.
type Target struct {
	// Selector is the `eni` object; zero without one.
	Selector eni.Selector
	// Master is the name of a link in the host's namespace; empty without one. Never set together with Selector.
	Master string
}

// VPCIPAM is the configuration of vpcipam: the interface plugin's, with the ipam object inside.
type VPCIPAM struct {
	CNIVersion string
	Name       string // of the network
	Target
	IPAM IPAM
	Pod  attachment.Pod
}

// VPCIpvlan is the configuration of vpcipvlan.
type VPCIpvlan struct {
	CNIVersion string
	Name       string // of the network
	Target
	// MTU of the child; 0 (default) is that of the ENI's link.
	MTU int
	// SourceRouting sends replies out by the ENI that their source address belongs to (default true).
	SourceRouting bool
	// IPAMType is the IPAM plugin that serves addresses.
	IPAMType string
	// Register has the agent register the addresses of another IPAM plugin (default true); false with [TypeVPCIPAM].
	Register bool
	// OnConflict says what happens when another ENI holds such an address (default [attachment.WaitThenReassign]).
	OnConflict attachment.OnConflict
	// Floating are the ranges whose addresses the agent has follow the interface on which they appeared last; nil for none.
	Floating []attachment.Range
	// IPAM has the ipam object when IPAMType is [TypeVPCIPAM]; otherwise only AgentSocket and Timeout are set.
	IPAM IPAM
	// DNS of the network configuration itself; it goes before the IPAM's.
	DNS types.DNS
	Pod attachment.Pod
}

// Keys of our own objects; the rest of the top level belongs to the runtime ([ofRuntime]).
var (
	ipvlanKeys = []string{"eni", "floating", "ipam", "master", "mode", "mtu", "onConflict", "register", "sourceRouting"}
	ipamKeys   = []string{
		"addresses", "agentSocket", "dns", "exclude", "families", "gateway", "ranges", "reservationTags",
		"routes", "source", "sticky", "timeout", "type",
	}
	eniKeys    = []string{"deviceIndex", "networkCard", "subnetID", "subnetTags"}
	routeKeys  = []string{"advmss", "dst", "gw", "mtu", "priority", "scope", "table"}
	stickyKeys = []string{"statefulSet"}
	dnsKeys    = []string{"domain", "nameservers", "options", "search"}
)

// ofRuntime reports whether a top-level key is the specification's, or one that libcni and the runtimes put there.
// https://github.com/containernetworking/cni/blob/main/SPEC.md#section-1-network-configuration-format
func ofRuntime(key string) bool {
	switch key {
	case "cniVersion", "cniVersions", "name", "type", "prevResult", "args", "runtimeConfig", "capabilities", "dns",
		"disableCheck", "disableGC", "loadOnlyInlinedPlugins":
		return true
	}
	return strings.HasPrefix(key, "cni.dev/")
}
