// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// preloaded modules make the machine itself; it does not start without them. The last two are what tests begin with, many
// at a time: who asks for a module that is just being loaded on demand for another is told that there is none.
var preloaded = []string{"virtio_pci", "virtio_blk", "virtio_console", "ipvlan", "veth"}

// carried modules are in the guest's file system and load on demand, as on any host: the kernel asks modprobe for
// "rtnl-link-ipvlan", "nft-expr-…" and the like. Loading all of them up front would cost 25 ms each.
var carried = []string{
	"ipvlan", "veth", "bridge", "dummy", "macvlan", "vrf", "8021q", "overlay", "ifb", "virtio_net", "tun",
	"nf_tables", "nf_conntrack", "nfnetlink", "nft_fib_inet", "nft_fib_ipv4", "nft_fib_ipv6", "nft_ct", "nft_reject_inet",
	"nft_chain_nat", "nft_nat", "nft_masq", "nft_limit", "nft_log", "nft_objref", "nft_counter", "nft_hash",
	"sch_tbf", "sch_ingress", "sch_htb", "sch_fq", "sch_fq_codel", "sch_netem", "cls_matchall", "cls_u32", "act_mirred", "act_police",
	"xfrm_user", "inet_diag", "tcp_diag", "af_packet_diag", "unix_diag", "netlink_diag",
}

// required modules are what the runner exists for: a kernel without them is refused.
var required = []string{"ipvlan", "veth"}

// moduleTree is the part of a kernel's modules that goes into the guest.
type moduleTree struct {
	files []string // relative to lib/modules/VERSION, as modules.dep has them
	dep   []byte   // modules.dep of these files
	alias []byte   // modules.alias of these files
	load  []string // the preloaded modules that are not built in
}

// selectModules reads the indexes that depmod made and keeps what the guest needs with all dependencies.
func selectModules(k kernel) (moduleTree, error) {
	var t moduleTree
	dep, err := os.ReadFile(filepath.Join(k.modules, "modules.dep"))
	if err != nil {
		return t, err
	}
	alias, err := os.ReadFile(filepath.Join(k.modules, "modules.alias"))
	if err != nil {
		return t, err
	}
	builtin, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return t, err
	}
	return pick(string(dep), string(alias), string(builtin))
}

func pick(dep, alias, builtin string) (moduleTree, error) {
	var t moduleTree
	lines := map[string]string{}    // module name → its line in modules.dep
	byName := map[string][]string{} // module name → files that loading it takes
	for line := range strings.Lines(dep) {
		file, deps, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		name := moduleName(file)
		lines[name] = line
		byName[name] = append([]string{file}, strings.Fields(deps)...)
	}
	inKernel := map[string]bool{}
	for file := range strings.Lines(builtin) {
		inKernel[moduleName(strings.TrimSpace(file))] = true
	}
	for _, name := range required {
		if byName[name] == nil && !inKernel[name] {
			return t, fmt.Errorf("this kernel has no %s", name)
		}
	}
	for _, name := range preloaded {
		if byName[name] != nil {
			t.load = append(t.load, name)
		} else if !inKernel[name] {
			return t, fmt.Errorf("this kernel has no %s", name)
		}
	}
	kept := map[string]bool{}
	for _, name := range append(append([]string(nil), preloaded...), carried...) {
		for _, file := range byName[name] {
			if m := moduleName(file); !kept[m] {
				kept[m] = true
				t.files = append(t.files, file)
				t.dep = append(t.dep, lines[m]...)
			}
		}
	}
	for line := range strings.Lines(alias) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "alias" && kept[f[2]] {
			t.alias = append(t.alias, line...)
		}
	}
	return t, nil
}

// moduleName is the name the kernel knows: without folder and suffixes, with underscores.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
