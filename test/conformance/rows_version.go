// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
)

// versionRows are about VERSION and the versions of configurations.
func versionRows() []row {
	return []row{
		{
			id: "version", form: true, level: must, where: "§2 VERSION, §5 VERSION Success",
			says: "VERSION lists the version", check: version,
		},
		{
			id: "version-echo", form: true, level: must, where: "§5 VERSION Success",
			says: "its answer has the cniVersion that was asked with", check: versionEcho,
		},
		{
			id: "version-unknown", level: must, where: "§5 Error, code 1",
			says:  "configuration in a version that VERSION does not list fails with code 1; 0.1.0 and 0.2.0 are served when it does",
			check: versionUnknown,
		},
		{
			id: "version-verbs", form: true, level: must, where: "§2",
			says:  "a command that came later than the configuration's version is refused (CHECK 0.4.0, STATUS and GC 1.1.0)",
			check: versionVerbs,
		},
	}
}

type versionAnswer struct {
	CNIVersion        string   `json:"cniVersion"`
	SupportedVersions []string `json:"supportedVersions"`
}

func (k *kit) askVersion() (a versionAnswer, err error) {
	r, err := k.do(call{command: "VERSION", stdin: []byte(`{"cniVersion": "` + k.version + `"}`)})
	if err = errors.Join(err, r.done()); err != nil {
		return a, err
	}
	return a, one(r.stdout, &a)
}

func version(k *kit) error {
	a, err := k.askVersion()
	if err == nil && !slices.Contains(a.SupportedVersions, k.version) {
		err = fmt.Errorf("it supports %q", a.SupportedVersions)
	}
	return err
}

func versionEcho(k *kit) error {
	a, err := k.askVersion()
	if err == nil && a.CNIVersion != k.version {
		err = fmt.Errorf("asked with %s, it answers %s", k.version, a.CNIVersion)
	}
	return err
}

func versionUnknown(k *kit) error {
	answer, err := k.askVersion()
	if err != nil {
		return err
	}
	for _, v := range []string{"0.1.0", "0.2.0", "9.9.9"} {
		a, err := k.container()
		if err != nil {
			return err
		}
		c := call{command: "ADD", at: a, config: object{"cniVersion": v}}
		if slices.Contains(answer.SupportedVersions, v) {
			err = k.must(c)
		} else {
			err = k.refuses(c, "version "+v, types.ErrIncompatibleCNIVersion)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func versionVerbs(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	var calls []call
	if !since(k.version, "0.4.0") {
		calls = append(calls, k.check(a))
	}
	if !since(k.version, "1.1.0") {
		calls = append(calls, call{command: "STATUS"}, k.gc(a))
	}
	for _, c := range calls {
		if _, _, err := k.fails(c); err != nil {
			return fmt.Errorf("version %s: %w", k.version, err)
		}
	}
	return nil
}
