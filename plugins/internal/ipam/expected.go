// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// Expectation is what the result of an ADD, which CHECK is given, says of the attachment's interface.
type Expectation struct {
	Addresses []Address
	// Routes of the whole result: it does not say by which interface they go.
	Routes []netconf.Route
}

// PrevResult is the result in a configuration, nil without one.
func PrevResult(stdin []byte) (*types100.Result, error) {
	conf := types.PluginConf{}
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("prevResult: %v", err), "")
	}
	if conf.RawPrevResult == nil {
		return nil, nil
	}
	if err := version.ParsePrevResult(&conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("prevResult: %v", err), "")
	}
	r, err := types100.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("prevResult: %v", err), "")
	}
	return r, nil
}

// Expected reads prevResult for CHECK; it must be there and name the interface.
func Expected(stdin []byte, a attachment.Attachment) (Expectation, error) {
	r, err := PrevResult(stdin)
	if err != nil {
		return Expectation{}, err
	}
	if r == nil {
		return Expectation{}, types.NewError(types.ErrInvalidNetworkConfig, "prevResult: missing; CHECK needs the result of ADD", "")
	}
	var e Expectation
	if e.Routes, err = RoutesFromCNI(r.Routes); err != nil {
		return e, err
	}
	index := slices.IndexFunc(r.Interfaces, func(i *types100.Interface) bool { return i.Name == a.IfName && i.Sandbox != "" })
	if index < 0 && len(r.Interfaces) > 0 { // an IPAM plugin's own result has none
		return e, types.NewError(agentapi.CodeCheckFailed, fmt.Sprintf("prevResult has no interface %s in a sandbox", a.IfName), "")
	}
	for _, ip := range r.IPs {
		if index >= 0 && (ip.Interface == nil || *ip.Interface != index) {
			continue
		}
		address, err := FromCNI(ip)
		if err != nil {
			return e, err
		}
		e.Addresses = append(e.Addresses, address)
	}
	return e, nil
}
