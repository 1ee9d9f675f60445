// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// admit refuses peers of another network namespace than home. A socket file can be reached wherever its directory is
// mounted; the namespace cannot be lent.
func admit(conn net.Conn, home attachment.Netns) error {
	peer, err := namespaceOf(conn)
	if err != nil {
		return fmt.Errorf("find the network namespace of the caller: %w", err)
	}
	if !peer.Same(home) {
		return errors.New("the caller is in another network namespace than the agent; only the node's own may ask")
	}
	return nil
}

// namespaceOf is the network namespace of a socket: for a listener where it was made, for an accepted unix connection
// that of the peer, because connect(2) makes the accepting side's socket in the caller's namespace
// (net/unix/af_unix.c, unix_stream_connect: unix_create1(net, …) with net = sock_net(sk)).
func namespaceOf(socket any) (ns attachment.Netns, err error) {
	var inner error
	err = control(socket, func(fd int) {
		if ns, inner = byCookie(fd); errors.Is(inner, unix.ENOPROTOOPT) {
			ns, inner = byHandle(fd)
		}
	})
	return ns, errors.Join(err, inner)
}

// control has do use the file descriptor of a socket.
func control(socket any, do func(fd int)) error {
	sc, ok := socket.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T is not a socket", socket)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { do(int(fd)) })
}

// byCookie needs Linux 5.14.
func byCookie(fd int) (attachment.Netns, error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return attachment.Netns{}, fmt.Errorf("read SO_NETNS_COOKIE: %w", err)
	}
	return attachment.Netns{Cookie: cookie}, nil
}

// byHandle is for older kernels. An inode cannot be reused while the socket lives, so it is as good here.
func byHandle(fd int) (attachment.Netns, error) {
	ns, err := handleOf(fd)
	if err != nil {
		return attachment.Netns{}, err
	}
	defer func() { _ = unix.Close(ns) }() // opened for reading alone
	var st unix.Stat_t
	if err := unix.Fstat(ns, &st); err != nil {
		return attachment.Netns{}, fmt.Errorf("stat the namespace: %w", err)
	}
	return attachment.Netns{Device: st.Dev, Inode: st.Ino}, nil
}

// handleOf opens the network namespace of a socket. It needs CAP_NET_ADMIN.
func handleOf(fd int) (ns int, err error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGSKNS, 0)
	if errno != 0 {
		return -1, fmt.Errorf("ioctl SIOCGSKNS: %w", errno)
	}
	return int(r), nil
}
