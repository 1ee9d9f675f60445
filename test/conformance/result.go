// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// versions of the specification that a subject is held to, in their order. Those before are recorded only.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// since reports whether a version is at least another.
func since(version, first string) bool {
	return first == "" || slices.Index(versions, version) >= slices.Index(versions, first)
}

// result is what an ADD answers.
type result struct {
	raw        json.RawMessage
	CNIVersion string        `json:"cniVersion"`
	Interfaces []madeLink    `json:"interfaces"`
	IPs        []madeAddress `json:"ips"`
	Routes     []struct {
		Dst netip.Prefix `json:"dst"`
	} `json:"routes"`
}

type madeLink struct {
	Name    string `json:"name"`
	MAC     string `json:"mac"`
	MTU     int    `json:"mtu"`
	Sandbox string `json:"sandbox"`
}

type madeAddress struct {
	Version   string       `json:"version"`
	Address   netip.Prefix `json:"address"`
	Interface *int         `json:"interface"`
}

// addresses of the result, without lengths.
func (r result) addresses() (list []netip.Addr) {
	for _, ip := range r.IPs {
		list = append(list, ip.Address.Addr())
	}
	return list
}

// result reads the answer of an ADD strictly.
func (r reply) result(version string) (result, error) {
	var out result
	if err := r.done(); err != nil {
		return out, err
	}
	out.raw = r.stdout
	if err := one(r.stdout, &out); err != nil {
		return out, fmt.Errorf("the result of ADD: %w", err)
	}
	if len(out.IPs) == 0 {
		return out, errors.New("the result of ADD has no address")
	}
	return out, nil
}

// shape are the keys of a result's objects in a version.
func shape(version string) map[string][]string {
	keys := map[string][]string{
		"":           {"cniVersion", "interfaces", "ips", "routes", "dns"},
		"interfaces": {"name", "mac", "sandbox"},
		"ips":        {"address", "gateway", "interface"},
		"routes":     {"dst", "gw"},
		"dns":        {"nameservers", "domain", "search", "options"},
	}
	if !since(version, "1.0.0") {
		keys["ips"] = append(keys["ips"], "version")
	}
	if since(version, "1.1.0") {
		keys["interfaces"] = append(keys["interfaces"], "mtu", "socketPath", "pciID")
		keys["routes"] = append(keys["routes"], "mtu", "advmss", "priority", "table", "scope")
	}
	return keys
}

// wellFormed holds a result to the shape of its version.
func wellFormed(raw []byte, version string) error {
	var top object
	if err := one(raw, &top); err != nil {
		return err
	}
	keys := shape(version)
	var errs []error
	only := func(kind string, o object) {
		for key := range o {
			if !slices.Contains(keys[kind], key) {
				errs = append(errs, fmt.Errorf("a result of version %s has no key %s in %q", version, key, kind))
			}
		}
	}
	only("", top)
	for kind := range keys {
		switch value := top[kind].(type) {
		case object:
			only(kind, value)
		case []any:
			for _, entry := range value {
				o, isObject := entry.(object)
				if !isObject {
					errs = append(errs, fmt.Errorf("%s has an entry that is no object", kind))
				}
				only(kind, o)
				if _, found := o["version"]; kind == "ips" && !since(version, "1.0.0") && !found {
					errs = append(errs, fmt.Errorf("an address of version %s has no version", version))
				}
			}
		}
	}
	return errors.Join(errs...)
}
