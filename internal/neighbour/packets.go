// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package neighbour

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// sendARP sends each sibling an ARP reply that says who has addr. It goes to the ENI's own MAC, so that the kernel hands it to the
// pod that carries the sibling's address, and to nobody outside.
// https://github.com/torvalds/linux/blob/v6.1/drivers/net/ipvlan/ipvlan_core.c (ipvlan_xmit_mode_l2, ipvlan_addr_lookup)
func sendARP(index int, own, mac net.HardwareAddr, addr netip.Addr, siblings []netip.Addr) (err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ARP), Ifindex: index, Halen: uint8(len(own))}
	copy(to.Addr[:], own)
	for _, s := range siblings {
		if err := unix.Sendto(fd, arpReply(mac, addr, own, s), 0, to); err != nil {
			return err
		}
	}
	return nil
}

// arpReply says that mac has addr (RFC 826).
func arpReply(mac net.HardwareAddr, addr netip.Addr, toMAC net.HardwareAddr, to netip.Addr) []byte {
	const ethernet, ipv4, reply = 1, unix.ETH_P_IP, 2
	p := binary.BigEndian.AppendUint16(nil, ethernet)
	p = binary.BigEndian.AppendUint16(p, ipv4)
	p = append(p, 6, 4) // lengths of a MAC and of an address
	p = binary.BigEndian.AppendUint16(p, reply)
	p = append(append(p, mac...), addr.AsSlice()...)
	return append(append(p, toMAC...), to.AsSlice()...)
}

// sendNA sends each sibling a neighbour advertisement for addr.
func sendNA(name string, index int, mac net.HardwareAddr, addr netip.Addr, siblings []netip.Addr) (err error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	const fromThisLink = 255 // RFC 4861, section 7.1.2: anything less is ignored
	err = errors.Join(unix.BindToDevice(fd, name), unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, fromThisLink))
	if err != nil {
		return err
	}
	message := advertisement(mac, addr)
	for _, s := range siblings {
		if err := unix.Sendto(fd, message, 0, &unix.SockaddrInet6{Addr: s.As16(), ZoneId: uint32(index)}); err != nil {
			return err
		}
	}
	return nil
}

// advertisement says that mac has addr, unsolicited and instead of what was known before (RFC 4861, section 4.4). The kernel fills
// the checksum in.
func advertisement(mac net.HardwareAddr, addr netip.Addr) []byte {
	const neighborAdvertisement, override, targetLinkLayerAddress, units = 136, 0x20, 2, 1
	p := []byte{neighborAdvertisement, 0, 0, 0, override, 0, 0, 0}
	p = append(p, addr.AsSlice()...)
	return append(append(p, targetLinkLayerAddress, units), mac...)
}

// bigEndian is htons.
func bigEndian(v uint16) uint16 { return v<<8 | v>>8 }
