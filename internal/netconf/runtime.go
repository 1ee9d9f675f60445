// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// fromRuntime is what runtimes add to a call.
// https://github.com/containernetworking/cni/blob/main/CONVENTIONS.md
type fromRuntime struct {
	args        map[string]string // CNI_ARGS
	cni, config object            // `args.cni`, `runtimeConfig`
}

// runtime refuses a request for a MAC; that for addresses is read by [reader.requested].
func (r *reader) runtime(top object, env Env) fromRuntime {
	const reason = "an ipvlan interface has its ENI's MAC and no other"
	f := fromRuntime{args: parseArgs(env.Args), cni: top.inner("args", "cni"), config: top.inner("runtimeConfig")}
	if mac := f.args["MAC"]; mac != "" {
		r.unsupported("CNI_ARGS MAC", "%q: %s", mac, reason)
	}
	for _, o := range []object{f.cni, f.config} {
		if mac := o.raw("mac"); mac != nil && string(mac) != `""` {
			r.unsupported(o.at("mac"), "%s: %s", show(mac), reason)
		}
	}
	return f
}

func (f fromRuntime) pod() attachment.Pod {
	return attachment.Pod{Namespace: f.args["K8S_POD_NAMESPACE"], Name: f.args["K8S_POD_NAME"], UID: f.args["K8S_POD_UID"]}
}

// requested are the addresses that the runtime asks for, from the first place that names any, and that place. The pod's
// annotation arrives in several of them at once (Multus), with and without prefix length.
func (r *reader) requested(f fromRuntime) (addrs []netip.Addr, place string) {
	const want = "a list of addresses"
	var legacy []string
	if ip := f.args["IP"]; ip != "" {
		legacy = strings.Split(ip, ",")
	}
	for _, from := range []struct {
		place string
		list  []string
	}{
		{f.config.at("ips"), f.config.strings("ips", want)},
		{f.cni.at("ips"), f.cni.strings("ips", want)},
		{"CNI_ARGS IP", legacy},
	} {
		if len(from.list) > 0 {
			return r.requests(from.place, from.list), from.place
		}
	}
	return nil, ""
}

// requests reads requested addresses: with or without prefix length, at most one of each family.
func (r *reader) requests(place string, list []string) []netip.Addr {
	var addrs []netip.Addr
	for i, s := range list {
		at := fmt.Sprintf("%s[%d]", place, i)
		bare := strings.TrimSpace(s)
		if p, err := netip.ParsePrefix(bare); err == nil {
			bare = p.Addr().String()
		}
		a, ok := r.parseAddress(at, bare)
		switch {
		case !ok:
		case a.IsLinkLocalUnicast():
			r.invalid(at, "%q is a link-local address, which EC2 does not assign", s)
		case slices.ContainsFunc(addrs, func(b netip.Addr) bool { return a.BitLen() == b.BitLen() }):
			r.invalid(at, "%q is the second of its family; an interface has at most one of each", s)
		default:
			addrs = append(addrs, a)
		}
	}
	return addrs
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
