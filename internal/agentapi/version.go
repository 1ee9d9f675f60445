// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import "fmt"

func orDefault(version int) int {
	if version == 0 {
		return Version
	}
	return version
}

// serves reports whether a side of version own understands messages of version other: its own and the one before.
func serves(own, other int) bool { return other >= 1 && (other == own || other == own-1) }

// versionError says which side is too old.
func versionError(plugin, agent int) *Error {
	side := "the agent"
	if plugin < agent {
		side = "the plugins (the agent installs them when --cni-bin-dir is set)"
	}
	return &Error{Code: CodeVersion, Message: fmt.Sprintf(
		"the plugin speaks version %d of the agent protocol, the agent %s; upgrade %s", plugin, spoken(agent), side)}
}

func spoken(agent int) string {
	if agent == 1 {
		return "1"
	}
	return fmt.Sprintf("%d and %d", agent, agent-1)
}
