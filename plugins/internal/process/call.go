// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package process

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// read is the call that the environment describes. Variables are required by
// https://github.com/containernetworking/cni/blob/main/SPEC.md#cni-operations; the commands that are about no attachment
// need CNI_PATH alone.
func read(getenv func(string) string, stdin io.Reader) (Call, error) {
	c := Call{
		Command: getenv("CNI_COMMAND"), ContainerID: getenv("CNI_CONTAINERID"), IfName: getenv("CNI_IFNAME"),
		Netns: getenv("CNI_NETNS"), Args: getenv("CNI_ARGS"),
	}
	override := getenv("CNI_NETNS_OVERRIDE")
	c.NetnsOverride = override == "1" || strings.EqualFold(override, "true")
	attached := c.Command == "ADD" || c.Command == "CHECK" || c.Command == "DEL"
	var missing []string
	for _, v := range []struct {
		name, value string
		required    bool
	}{
		{"CNI_COMMAND", c.Command, true},
		{"CNI_CONTAINERID", c.ContainerID, attached},
		{"CNI_NETNS", c.Netns, attached && c.Command != "DEL"},
		{"CNI_IFNAME", c.IfName, attached},
		{"CNI_PATH", getenv("CNI_PATH"), attached || c.Command == "GC" || c.Command == "STATUS"},
	} {
		if v.required && v.value == "" {
			missing = append(missing, v.name)
		}
	}
	if len(missing) > 0 {
		return c, invalidEnv("", "required env variables [%s] missing", strings.Join(missing, ","))
	}
	if attached {
		if err := checkNames(c); err != nil {
			return c, err
		}
	}
	return c, c.configure(stdin)
}

func (c *Call) configure(stdin io.Reader) (err error) {
	if c.Stdin, err = io.ReadAll(stdin); err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("error reading from stdin: %v", err), "")
	}
	if c.Config, err = netconf.Open(c.Stdin); err != nil {
		return types.NewError(types.ErrDecodingFailure, err.Error(), "")
	}
	c.opened = true
	switch name, ok := c.Config.Name(); {
	case !ok:
		return types.NewError(types.ErrDecodingFailure, "network configuration: name is not a string", "")
	case name == "":
		return types.NewError(types.ErrInvalidNetworkConfig, "missing network name", "")
	case !isName(name):
		return types.NewError(types.ErrInvalidNetworkConfig, "invalid characters found in network name", name)
	}
	return nil
}

// checkNames holds container and interface to what the specification and Linux allow.
// https://github.com/torvalds/linux/blob/v6.1/net/core/dev.c (dev_valid_name)
func checkNames(c Call) error {
	const longest = 15
	switch {
	case !isName(c.ContainerID):
		return invalidEnv(c.ContainerID, "CNI_CONTAINERID: invalid characters in containerID")
	case len(c.IfName) > longest:
		return invalidEnv(fmt.Sprintf("interface name should be less than %d characters", longest+1), "CNI_IFNAME: interface name is too long")
	case c.IfName == "." || c.IfName == "..":
		return invalidEnv("", "CNI_IFNAME: interface name is . or ..")
	case strings.ContainsFunc(c.IfName, func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) }):
		return invalidEnv("", "CNI_IFNAME: interface name contains / or : or whitespace characters")
	case c.Command == "ADD" && (strings.Contains(c.IfName, "%") || !utf8.ValidString(c.IfName)):
		// The kernel makes net0 of net%d, and JSON one name of any that are no UTF-8: DEL would miss them.
		return invalidEnv("", "CNI_IFNAME: interface name contains a percent sign or is no UTF-8")
	}
	return nil
}

// isName reports whether s is an alphanumeric character, then any of those and of "_.-".
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return s != ""
}

func invalidEnv(details, format string, args ...any) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf(format, args...), details)
}
