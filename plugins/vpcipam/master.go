// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"fmt"
	"unsafe"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// selectorOf turns a master's name into what identifies the ENI, its MAC.
func selectorOf(t netconf.Target) (eni.Selector, error) {
	if t.Master == "" {
		return t.Selector, nil
	}
	mac, err := macOf(t.Master)
	if err != nil {
		return eni.Selector{}, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("master: no link %q on this node; name the link of an ENI", t.Master), err.Error())
	}
	return eni.Selector{MAC: mac}, nil
}

// macOf is the MAC of a link. netdevice(7) gives it for one system call, where package net lists the links of the node:
// a tenth of a millisecond on a worker with many.
func macOf(name string) (eni.MAC, error) {
	var request struct { // struct ifreq
		name    [unix.IFNAMSIZ]byte
		address unix.RawSockaddr
		_       [8]byte
	}
	if copy(request.name[:], name) == unix.IFNAMSIZ {
		return "", unix.ENODEV // no room for the closing zero: longer than names can be
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(s)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCGIFHWADDR, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return "", fmt.Errorf("ask for the MAC of %s: %w", name, errno)
	}
	if request.address.Family != unix.ARPHRD_ETHER {
		return "", fmt.Errorf("link %s is no Ethernet device", name)
	}
	var mac []byte
	for i, b := range request.address.Data[:6] {
		if i > 0 {
			mac = append(mac, ':')
		}
		mac = append(mac, hexDigits[uint8(b)>>4], hexDigits[uint8(b)&15])
	}
	return eni.MAC(mac), nil
}

const hexDigits = "0123456789abcdef"
