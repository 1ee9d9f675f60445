// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// runtime reads what runtimes add to a call: the pod's name, and requests for addresses, which are refused for now.
// https://github.com/containernetworking/cni/blob/main/CONVENTIONS.md
func (r *reader) runtime(top object, env Env) attachment.Pod {
	args := parseArgs(env.Args)
	if ip := args["IP"]; ip != "" {
		r.unsupported("CNI_ARGS IP", "%q: requested addresses are not supported yet", ip)
	}
	if o, found := top.object("args"); found {
		if cni, ok := o.object("cni"); ok {
			r.requested(cni)
		}
	}
	if o, found := top.object("runtimeConfig"); found {
		r.requested(o)
		if o.has("mac") {
			r.unsupported(o.at("mac"), "%s: an ipvlan interface has its ENI's MAC and no other", show(o.raw("mac")))
		}
	}
	return attachment.Pod{
		Namespace: args["K8S_POD_NAMESPACE"],
		Name:      args["K8S_POD_NAME"],
		UID:       args["K8S_POD_UID"],
	}
}

func (r *reader) requested(o object) {
	if list := o.raw("ips"); list != nil && string(list) != "[]" {
		r.unsupported(o.at("ips"), "%s: requested addresses are not supported yet", show(list))
	}
}

// parseArgs splits CNI_ARGS, "K=V;K=V". Keys are the runtimes' and cannot be wrong; a part without "=" is ignored.
func parseArgs(s string) map[string]string {
	args := map[string]string{}
	for pair := range strings.SplitSeq(s, ";") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			args[k] = v
		}
	}
	return args
}

// Release is what DEL needs to know of a configuration.
type Release struct {
	Name        string
	IPAMType    string // empty when the configuration has none
	AgentSocket string
}

// ParseRelease reads a configuration for DEL. It never fails, for DEL must free what an earlier version of the
// configuration took: what cannot be read counts as absent.
func ParseRelease(stdin []byte, env Env) Release {
	r := &reader{} // its problems are not asked for
	rel := Release{AgentSocket: env.AgentSocket}
	top, ok := r.open(stdin)
	if !ok {
		return rel
	}
	rel.Name = top.text("name")
	if ipam, found := top.object("ipam"); found {
		rel.IPAMType = ipam.text("type")
		if s := ipam.text("agentSocket"); rel.IPAMType == TypeVPCIPAM && usableSocket(s) {
			rel.AgentSocket = s
		}
	}
	return rel
}
