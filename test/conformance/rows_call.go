// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// callRows are about parameters, configuration, answers and errors.
func callRows() []row {
	return []row{
		{
			id: "result-shape", form: true, level: must, where: "§5 ADD Success",
			says:  "ADD prints one JSON document: the result in the version of the configuration, with the keys of that version",
			check: resultShape,
		},
		{
			id: "quiet", level: must, where: "§5",
			says:  "DEL and CHECK print nothing on stdout when they succeed",
			check: quiet,
		},
		{
			id: "error-object", level: must, where: "§2 Errors, §5 Error",
			says:  "a call that fails has a non-zero exit status and prints one error object with code and msg, nothing else",
			check: errorObject,
		},
		{
			id: "error-version", form: true, level: should, where: "§5 Error",
			says: "the error object has the cniVersion in use", check: errorVersion,
		},
		{
			id: "env-missing", level: must, where: "§2 Parameters, §5 Error",
			says: "without a parameter that it needs, ADD and DEL fail with code 4 and a message that names it", check: envMissing,
		},
		{
			id: "env-invalid", level: must, where: "§2 Parameters, §5 Error",
			says: "a container ID or an interface name that cannot be fails with code 4", check: envInvalid(false),
		},
		{
			id: "env-invalid-named", level: must, where: "§5 Error, code 4",
			says: "and the message names the variable", check: envInvalid(true),
		},
		{
			id: "undecodable", level: must, where: "§5 Error, code 6",
			says: "configuration that is no JSON fails with code 6", check: undecodable,
		},
		{
			id: "network-name", level: must, where: "§1 Configuration format",
			says: "configuration without a network name, or with one that cannot be, fails with code 7", check: networkName,
		},
		{
			id: "unknown-key", level: must, where: "§1 Other keys, §5 Error, code 2",
			says: "an unknown key is tolerated, or refused with code 2 and a message that has key and value", check: unknownKey,
		},
		{
			id: "runtime-keys", level: must, where: "§1, §3 Deriving request configuration",
			says: "keys of the runtime and of the network configuration are tolerated", check: runtimeKeys,
		},
	}
}

func resultShape(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	if a.result.CNIVersion != k.version {
		return fmt.Errorf("the result has cniVersion %q", a.result.CNIVersion)
	}
	return wellFormed(a.result.raw, k.version)
}

func quiet(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	calls := []call{{command: "DEL", at: a}}
	if since(k.version, "0.4.0") {
		calls = slices.Insert(calls, 0, k.check(a))
	}
	for _, c := range calls {
		r, err := k.do(c)
		if err != nil {
			return err
		}
		if r.code != 0 {
			continue // is for other rows
		}
		if said := bytes.TrimSpace(r.stdout); len(said) > 0 {
			return fmt.Errorf("%s prints %q", c.command, oneLine(string(said)))
		}
	}
	return nil
}

func errorObject(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	for _, c := range []call{
		{command: "ADD", at: a, stdin: []byte("{")},
		{command: "ADD", at: a, config: object{"cniVersion": "9.9.9"}},
		{command: "ADD", at: a, env: map[string]string{"CNI_IFNAME": "sixteen-letters-"}},
		{command: "NOSUCH", at: a},
	} {
		if _, _, err := k.fails(c); err != nil {
			return err
		}
	}
	return nil
}

func errorVersion(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	r, err := k.do(call{command: "ADD", at: a, config: object{"name": "a/b"}})
	if err != nil {
		return err
	}
	e, err := r.refusal()
	if err == nil && e.CNIVersion != k.version {
		err = fmt.Errorf("cniVersion of the error object is %q", e.CNIVersion)
	}
	return err
}

// refuses is a call that must fail with a code and a message that has the words.
func (k *kit) refuses(c call, what string, code uint, words ...string) error {
	got, message, err := k.fails(c)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if got != code {
		return fmt.Errorf("%s: code %d, want %d: %s", what, got, code, message)
	}
	for _, word := range words {
		if !strings.Contains(message, word) {
			return fmt.Errorf("%s: the message does not name %s: %s", what, word, message)
		}
	}
	return nil
}

func envMissing(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	for _, c := range []struct{ command, variable string }{
		{"ADD", "CNI_CONTAINERID"}, {"ADD", "CNI_NETNS"}, {"ADD", "CNI_IFNAME"}, {"DEL", "CNI_CONTAINERID"}, {"DEL", "CNI_IFNAME"},
	} {
		without := call{command: c.command, at: a, env: map[string]string{c.variable: ""}}
		if err := k.refuses(without, c.command+" without "+c.variable, types.ErrInvalidEnvironmentVariables, c.variable); err != nil {
			return err
		}
	}
	return nil
}

func envInvalid(named bool) func(*kit) error {
	return func(k *kit) error {
		a, err := k.container()
		if err != nil {
			return err
		}
		for _, c := range []struct{ variable, value string }{
			{"CNI_CONTAINERID", "../c1"},
			{"CNI_CONTAINERID", "-c1"},
			{"CNI_IFNAME", "sixteen-letters-"},
			{"CNI_IFNAME", ".."},
			{"CNI_IFNAME", "a/b"},
			{"CNI_IFNAME", "a b"},
		} {
			var words []string
			if named {
				words = []string{c.variable}
			}
			bad := call{command: "ADD", at: a, env: map[string]string{c.variable: c.value}}
			if err := k.refuses(bad, c.variable+"="+c.value, types.ErrInvalidEnvironmentVariables, words...); err != nil {
				return err
			}
		}
		return nil
	}
}

func undecodable(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	for _, text := range []string{"{", "[]", "no JSON"} {
		if err := k.refuses(call{command: "ADD", at: a, stdin: []byte(text)}, text, types.ErrDecodingFailure); err != nil {
			return err
		}
	}
	return nil
}

func networkName(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	for _, name := range []any{nil, "", "a/b", "-a"} {
		c := call{command: "ADD", at: a, config: object{"name": name}}
		if err := k.refuses(c, fmt.Sprintf("name %v", name), types.ErrInvalidNetworkConfig); err != nil {
			return err
		}
	}
	return nil
}

func unknownKey(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	r, err := k.do(call{command: "ADD", at: a, config: object{"unheardOf": "indeed"}})
	if err != nil || r.code == 0 {
		return err
	}
	e, err := r.refusal()
	if err != nil {
		return err
	}
	if e.Code != types.ErrUnsupportedField || !strings.Contains(e.Msg, "unheardOf") || !strings.Contains(e.Msg, "indeed") {
		return fmt.Errorf("code %d: %s", e.Code, e.Msg)
	}
	return nil
}

func runtimeKeys(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	return k.add(a, object{
		"args":           object{"cni": object{"labels": []any{object{"key": "app", "value": "web"}}}, "example.com": "x"},
		"runtimeConfig":  object{"portMappings": []any{}, "io.kubernetes.cri.pod-annotations": object{"a": "b"}},
		"capabilities":   object{"portMappings": true},
		"cniVersions":    []any{k.version},
		"disableCheck":   false,
		"disableGC":      false,
		"cni.dev/future": object{"a": 1},
	})
}
