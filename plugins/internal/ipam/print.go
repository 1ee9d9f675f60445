// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"io"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/internal/plainjson"
)

// PrintTo writes the result in a version of the specification since 0.3.0. What a version does not know is left out where
// the library does so, too: it differs before 1.0.0, where addresses name their family and `dns` is always there.
func (r Result) PrintTo(w io.Writer, version string) error {
	old := strings.HasPrefix(version, "0.")
	var text plainjson.Writer
	text.Open('{')
	text.Key("cniVersion")
	text.String(version)
	printObjects(&text, "interfaces", r.Interfaces, printInterface)
	printObjects(&text, "ips", r.IPs, func(w *plainjson.Writer, ip IP) { printIP(w, ip, old) })
	printObjects(&text, "routes", r.Routes, printRoute)
	if old || !r.DNS.IsEmpty() {
		text.Key("dns")
		printDNS(&text, r.DNS)
	}
	text.Close('}')
	_, err := w.Write(append(text.Bytes(), '\n'))
	return err
}

func printInterface(w *plainjson.Writer, i Interface) {
	w.Key("name")
	w.String(i.Name)
	printText(w, "mac", string(i.MAC))
	printInt(w, "mtu", i.MTU)
	printText(w, "sandbox", i.Sandbox)
	printText(w, "socketPath", i.SocketPath)
	printText(w, "pciID", i.PCIID)
}

func printIP(w *plainjson.Writer, ip IP, old bool) {
	if old {
		w.Key("version")
		if ip.Prefix.Addr().Is4() {
			w.String("4")
		} else {
			w.String("6")
		}
	}
	if ip.Interface != nil {
		w.Key("interface")
		w.Int(int64(*ip.Interface))
	}
	w.Key("address")
	w.Text(ip.Prefix)
	if ip.Gateway.IsValid() {
		w.Key("gateway")
		w.Text(ip.Gateway)
	}
}

func printRoute(w *plainjson.Writer, r netconf.Route) {
	w.Key("dst")
	w.Text(r.Dst)
	if r.Gateway.IsValid() {
		w.Key("gw")
		w.Text(r.Gateway)
	}
	printInt(w, "mtu", r.MTU)
	printInt(w, "advmss", r.AdvMSS)
	printInt(w, "priority", r.Priority)
	printOptional(w, "table", r.Table)
	printOptional(w, "scope", r.Scope)
}

func printDNS(w *plainjson.Writer, d types.DNS) {
	w.Open('{')
	printStrings(w, "nameservers", d.Nameservers)
	printText(w, "domain", d.Domain)
	printStrings(w, "search", d.Search)
	printStrings(w, "options", d.Options)
	w.Close('}')
}

// printObjects, printStrings, printText, printInt and printOptional write a member unless it is empty.
func printObjects[T any](w *plainjson.Writer, key string, list []T, members func(*plainjson.Writer, T)) {
	if len(list) == 0 {
		return
	}
	w.Key(key)
	w.Open('[')
	for _, v := range list {
		w.Open('{')
		members(w, v)
		w.Close('}')
	}
	w.Close(']')
}

func printStrings(w *plainjson.Writer, key string, list []string) {
	if len(list) == 0 {
		return
	}
	w.Key(key)
	w.Open('[')
	for _, s := range list {
		w.String(s)
	}
	w.Close(']')
}

func printText(w *plainjson.Writer, key, value string) {
	if value != "" {
		w.Key(key)
		w.String(value)
	}
}

func printInt(w *plainjson.Writer, key string, value int) {
	if value != 0 {
		printOptional(w, key, &value)
	}
}

func printOptional(w *plainjson.Writer, key string, value *int) {
	if value != nil {
		w.Key(key)
		w.Int(int64(*value))
	}
}
