// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"encoding/json"
	"fmt"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Release is what DEL and GC need to know of a configuration.
type Release struct {
	Name        string
	IPAMType    string // empty when the configuration has none
	AgentSocket string
	// Registered is whether the agent may hold addresses for the attachment: always, but with another IPAM plugin under
	// "register": false.
	Registered bool
}

// Foreign reports whether another IPAM plugin than ours has to be called.
func (rel Release) Foreign() bool { return rel.IPAMType != "" && rel.IPAMType != TypeVPCIPAM }

// Release reads a configuration for DEL and GC. It never fails, for DEL must free what an earlier version of the
// configuration took: what cannot be read counts as absent.
func (d Document) Release(env Env) Release {
	top := d.object(&reader{}) // its problems are not asked for
	rel := Release{Name: top.text("name"), AgentSocket: env.AgentSocket, Registered: true}
	if ipam, found := top.object("ipam"); found {
		rel.IPAMType = ipam.text("type")
		if s := ipam.text("agentSocket"); rel.IPAMType == TypeVPCIPAM && usableSocket(s) {
			rel.AgentSocket = s
		}
	}
	if rel.Foreign() {
		rel.Registered = top.flag("register", true)
	}
	return rel
}

// attachmentKeys are where GC finds the valid attachments: the specification's text said one, its schema the other, and
// libcni sets both (https://github.com/containernetworking/cni/issues/1101).
var attachmentKeys = []string{"cni.dev/valid-attachments", "cni.dev/attachments"}

// Valid reads the attachments that GC must leave alone: those of either key. With neither key it fails, for the
// absence of a list is no proof that nothing is alive. Its error is [Problems].
// https://github.com/containernetworking/cni/blob/main/SPEC.md#gc-clean-up-any-stale-resources
func (d Document) Valid() ([]attachment.Key, error) {
	r := &reader{}
	valid, found := []attachment.Key{}, false
	for _, key := range attachmentKeys {
		raw, given := d.fields[key]
		found = found || given
		for i, one := range r.attachments(key, raw) {
			k := attachment.Key{ContainerID: one.ContainerID, IfName: one.IfName}
			if k.ContainerID == "" || k.IfName == "" {
				r.invalid(fmt.Sprintf("%s[%d]", key, i), "has no containerID or no ifname")
			}
			valid = append(valid, k)
		}
	}
	if !found {
		r.invalid(attachmentKeys[0], "missing; GC needs the list of attachments that are in use")
	}
	return valid, r.err()
}

// gcAttachment is an entry of the list.
type gcAttachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// attachments decodes a list; null, which libcni writes for an empty one, is empty.
func (r *reader) attachments(key string, raw json.RawMessage) []gcAttachment {
	if len(raw) == 0 {
		return nil
	}
	var list []gcAttachment
	if err := json.Unmarshal(raw, &list); err != nil {
		r.invalid(key, "%s is not a list of attachments", show(raw))
		return nil
	}
	return list
}
