// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/internal/netns"
	"github.com/multus-vpc/multus-vpc/plugins/internal/process"
)

// Env is what configurations are read with.
func Env(args string, getenv func(string) string) netconf.Env {
	env := netconf.Env{Args: args, AgentSocket: getenv("MULTUS_VPC_AGENT_SOCKET")}
	if env.AgentSocket == "" {
		env.AgentSocket = agentapi.DefaultSocket
	}
	return env
}

// Key is what a call is about.
func Key(call process.Call) attachment.Key {
	return attachment.Key{ContainerID: call.ContainerID, IfName: call.IfName}
}

// Describe identifies the attachment of an ADD or CHECK with its network namespace, which must not be the plugin's own.
func Describe(call process.Call, network string, pod attachment.Pod) (attachment.Attachment, error) {
	ns, err := netns.Identify(call.Netns)
	if err != nil {
		return attachment.Attachment{}, types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("CNI_NETNS %q: %v", call.Netns, err), "")
	}
	return attachment.Attachment{Key: Key(call), Network: network, Pod: pod, Netns: ns}, Elsewhere(call)
}

// Elsewhere is nil unless the call's namespace is the plugin's own: there a DEL fails, as it does in the specification's
// frame, but not before it has done what needs no namespace.
func Elsewhere(call process.Call) error {
	own, err := netns.IsOwn(call.Netns)
	if err == nil && (!own || call.NetnsOverride) {
		return nil
	}
	return types.NewError(types.ErrInvalidNetNS,
		fmt.Sprintf("CNI_NETNS %q must be another network namespace than the plugin's", call.Netns), detail(err))
}

func detail(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Error is [Coded], but nil stays nil.
func Error(err error) error {
	if err == nil {
		return nil
	}
	return Coded(err)
}

// Unavailable is err for STATUS: an ADD cannot be served.
func Unavailable(err error) error {
	e := Coded(err)
	return types.NewError(agentapi.CodeNotAvailable, e.Msg, e.Details)
}

// Coded gives an error its CNI code, unless it has one. It must be the last to touch it: what wraps it is not printed.
func Coded(err error) *types.Error {
	if e, ok := errors.AsType[*types.Error](err); ok {
		return e
	}
	if p, ok := errors.AsType[netconf.Problems](err); ok {
		return types.NewError(p.Code(), p.Error(), "")
	}
	e := agentapi.AsError(err)
	return types.NewError(e.Code, e.Message, e.Details)
}
