// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package neighbour

import (
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

func mac(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// The bytes are those that tcpdump shows of arping and of ndsend.
func TestPackets(t *testing.T) {
	t.Parallel()
	gateway, own := mac("0a:00:00:00:00:01"), mac("0a:00:00:00:00:02")
	arp := arpReply(gateway, netip.MustParseAddr("10.10.1.90"), own, netip.MustParseAddr("10.10.1.71"))
	if got, want := hex.EncodeToString(arp), "0001080006040002"+"0a0000000001"+"0a0a015a"+"0a0000000002"+"0a0a0147"; got != want {
		t.Errorf("ARP reply %s, want %s", got, want)
	}
	na := advertisement(gateway, netip.MustParseAddr("2001:db8::90"))
	if got, want := hex.EncodeToString(na), "8800000020000000"+"20010db8000000000000000000000090"+"0201"+"0a0000000001"; got != want {
		t.Errorf("neighbour advertisement %s, want %s", got, want)
	}
}

// inPod runs f on a thread in a network namespace of its own, with net1 whose far end is peer.
func inPod(t *testing.T, f func(i attachment.Interface, far int)) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			own := mac("0a:00:00:00:00:02")
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net1", HardwareAddr: own}, PeerName: "peer"}
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
			near, err := netlink.LinkByName("net1")
			far, farErr := netlink.LinkByName("peer")
			if err = errors.Join(err, farErr); err != nil {
				return err
			}
			i := attachment.Interface{Name: "net1", Index: near.Attrs().Index, Kind: attachment.KindIPVlan, MAC: eni.ParseMAC(own.String())}
			for _, a := range []string{"10.10.1.70/24", "2001:db8::70/64"} {
				addr, err := netlink.ParseAddr(a)
				if err != nil {
					return err
				}
				addr.Flags = unix.IFA_F_NODAD
				if err := netlink.AddrAdd(near, addr); err != nil {
					return err
				}
				i.Addresses = append(i.Addresses, netip.MustParsePrefix(a))
			}
			if err := errors.Join(netlink.LinkSetUp(near), netlink.LinkSetUp(far)); err != nil {
				return err
			}
			for ip, m := range map[string]net.HardwareAddr{
				"10.10.1.71": own, "10.10.1.80": mac("0a:00:00:00:00:09"), "10.10.1.1": mac("0a:00:00:00:00:01"),
				"2001:db8::71": own, "2001:db8::80": mac("0a:00:00:00:00:09"), "fe80:ec2::1": mac("0a:00:00:00:00:01"),
			} {
				entry := &netlink.Neigh{LinkIndex: i.Index, State: netlink.NUD_REACHABLE, IP: net.ParseIP(ip), HardwareAddr: m}
				if err := netlink.NeighSet(entry); err != nil {
					return err
				}
			}
			f(i, far.Attrs().Index)
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// heard returns the frames with the marker that arrive on a link while f runs.
func heard(t *testing.T, link int, marker string, want int, f func()) (frames []string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(bigEndian(unix.ETH_P_ALL)))
	if err != nil {
		t.Error(err)
		return nil
	}
	defer unix.Close(fd)
	const patience = 5 // seconds
	err = errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: link}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: patience}))
	if err != nil {
		t.Error(err)
		return nil
	}
	f()
	buf := make([]byte, 2048)
	for len(frames) < want {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Errorf("%d frames of %d: %v", len(frames), want, err)
			return frames
		}
		if text := hex.EncodeToString(buf[:n]); strings.Contains(text, marker) {
			frames = append(frames, text)
		}
	}
	return frames
}

func TestTellSpeaksToThePodsOnTheENIAlone(t *testing.T) {
	t.Parallel()
	const own, router = "0a0000000002", "0a0000000001"
	inPod(t, func(i attachment.Interface, far int) {
		for _, tt := range []struct {
			addr, marker, to string
			here             bool
			mac              string
		}{
			{addr: "10.10.1.90", marker: "0001080006040002", to: "0a0a0147", mac: router},
			{addr: "10.10.1.90", marker: "0001080006040002", to: "0a0a0147", here: true, mac: own},
			{addr: "2001:db8::90", marker: "20010db8000000000000000000000090", to: "20010db8000000000000000000000071", mac: router},
			{addr: "2001:db8::90", marker: "20010db8000000000000000000000090", to: "20010db8000000000000000000000071", here: true, mac: own},
		} {
			frames := heard(t, far, tt.marker, 1, func() {
				told, err := Tell(t.Context(), i, netip.MustParseAddr(tt.addr), tt.here)
				if err != nil || told != 1 {
					t.Errorf("%s here %v: told %d: %v", tt.addr, tt.here, told, err)
				}
			})
			for _, f := range frames {
				if !strings.HasPrefix(f, own) || !strings.Contains(f, tt.to) || !strings.Contains(f[24:], tt.mac) {
					t.Errorf("%s here %v: frame %s, want one to %s that says %s to %s", tt.addr, tt.here, f, own, tt.mac, tt.to)
				}
			}
		}
	})
}

func TestTellWithoutANeighbourSaysNothing(t *testing.T) {
	t.Parallel()
	inPod(t, func(i attachment.Interface, _ int) {
		i.MAC = "0a:00:00:00:00:07" // nobody has that
		if told, err := Tell(t.Context(), i, netip.MustParseAddr("10.10.1.90"), false); told != 0 || err != nil {
			t.Errorf("told %d: %v", told, err)
		}
	})
}

func TestAGatewayThatDoesNotAnswerIsAnError(t *testing.T) {
	t.Parallel()
	inPod(t, func(i attachment.Interface, _ int) {
		i.Addresses = []netip.Prefix{netip.MustParsePrefix("10.10.1.200/25")} // whose router is 10.10.1.129
		began := time.Now()
		_, err := Tell(t.Context(), i, netip.MustParseAddr("10.10.1.90"), false)
		if err == nil || !strings.Contains(err.Error(), "10.10.1.129") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > 3*gatewayPatience {
			t.Errorf("took %v", took)
		}
		i.Addresses = []netip.Prefix{netip.MustParsePrefix("10.10.1.70/32")}
		if _, err := Tell(t.Context(), i, netip.MustParseAddr("10.10.1.90"), false); err == nil || !strings.Contains(err.Error(), "no address that tells the subnet") {
			t.Errorf("without a subnet: %v", err)
		}
	})
}
