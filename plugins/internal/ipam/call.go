// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/internal/netns"
)

// Main runs a plugin's functions for the call that the environment describes, and returns the exit status. Errors are
// written to stdout as the specification wants them.
func Main(funcs skel.CNIFuncs, about string, getenv func(string) string, stdout, stderr io.Writer) int {
	versions := []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}
	if getenv("CNI_COMMAND") == "DEL" {
		// What was ADDed must go even if the configuration was cut down to name and type since; one without
		// cniVersion counts as 0.1.0.
		versions = append([]string{"0.1.0", "0.2.0"}, versions...)
	}
	err := skel.PluginMainFuncsWithError(funcs, version.PluginSupports(versions...), about)
	if err == nil {
		return 0
	}
	explain(err)
	text, marshalErr := json.MarshalIndent(err, "", "    ")
	if marshalErr == nil {
		_, marshalErr = stdout.Write(append(text, '\n'))
	}
	if marshalErr != nil {
		_, _ = fmt.Fprintln(stderr, "write the error:", marshalErr) // nobody is left to tell
	}
	return 1
}

// explain says what to do about a configuration that skel could not decode.
func explain(e *types.Error) {
	if what, ok := strings.CutPrefix(e.Msg, "error unmarshall network config: "); ok && e.Code == types.ErrDecodingFailure {
		e.Msg = "the network configuration is not JSON: " + what + "; correct config of the NetworkAttachmentDefinition"
	}
}

// Env is what configurations are read with.
func Env(args string, getenv func(string) string) netconf.Env {
	env := netconf.Env{Args: args, AgentSocket: getenv("MULTUS_VPC_AGENT_SOCKET")}
	if env.AgentSocket == "" {
		env.AgentSocket = agentapi.DefaultSocket
	}
	return env
}

// Key is what a call is about.
func Key(args *skel.CmdArgs) attachment.Key {
	return attachment.Key{ContainerID: args.ContainerID, IfName: args.IfName}
}

// Describe identifies the attachment of an ADD or CHECK with its network namespace, which must not be the plugin's own:
// skel compares them too, but when the damage is done.
func Describe(args *skel.CmdArgs, network string, pod attachment.Pod) (attachment.Attachment, error) {
	ns, err := netns.Identify(args.Netns)
	if err != nil {
		return attachment.Attachment{}, types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("CNI_NETNS %q: %v", args.Netns, err), "")
	}
	if own, ownErr := IsOwn(ns); ownErr != nil || own && !overridden(args) {
		return attachment.Attachment{}, types.NewError(types.ErrInvalidNetNS,
			fmt.Sprintf("CNI_NETNS %q must be another network namespace than the plugin's", args.Netns), detail(ownErr))
	}
	return attachment.Attachment{Key: Key(args), Network: network, Pod: pod, Netns: ns}, nil
}

// IsOwn reports whether ns is the plugin's own network namespace.
func IsOwn(ns attachment.Netns) (bool, error) {
	own, err := netns.Own()
	return err == nil && own.Same(ns), err
}

// overridden is how skel reads CNI_NETNS_OVERRIDE.
func overridden(args *skel.CmdArgs) bool {
	return strings.EqualFold(args.NetnsOverride, "true") || args.NetnsOverride == "1"
}

func detail(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Error is [Coded] for what skel prints: nil stays nil.
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

// Coded gives an error its CNI code, unless it has one. It must be the last to touch it: skel drops what wraps it.
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
