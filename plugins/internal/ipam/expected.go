// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/plugins/internal/process"
)

// Expectation is what the result of an ADD, which CHECK is given, says of the attachment's interface.
type Expectation struct {
	Addresses []Address
	// Routes of the whole result: it does not say by which interface they go.
	Routes []netconf.Route
}

// PrevResult is the result in a call's configuration, empty without one.
func PrevResult(call process.Call) (r Result, found bool, err error) {
	raw := call.Config.PrevResult()
	if raw == nil {
		return r, false, nil
	}
	version, _ := call.Config.CNIVersion() // the frame has seen that there is one
	if r, err = ReadResult(raw, version); err != nil {
		err = types.NewError(types.ErrDecodingFailure, fmt.Sprintf("prevResult: %v", err), "")
	}
	return r, true, err
}

// Expected reads prevResult for CHECK; it must be there and name the interface.
func Expected(call process.Call) (e Expectation, err error) {
	r, found, err := PrevResult(call)
	if err != nil {
		return e, err
	}
	if !found {
		return e, types.NewError(types.ErrInvalidNetworkConfig, "prevResult: missing; CHECK needs the result of ADD", "")
	}
	index := slices.IndexFunc(r.Interfaces, func(i Interface) bool { return i.Name == call.IfName && i.Sandbox != "" })
	if index < 0 && len(r.Interfaces) > 0 { // an IPAM plugin's own result has none
		return e, types.NewError(agentapi.CodeCheckFailed, fmt.Sprintf("prevResult has no interface %s in a sandbox", call.IfName), "")
	}
	for _, ip := range r.IPs {
		if index < 0 || ip.Interface != nil && *ip.Interface == index {
			e.Addresses = append(e.Addresses, ip.Address)
		}
	}
	e.Routes = r.Routes
	return e, nil
}
