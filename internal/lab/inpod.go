// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lab

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// Where the services listen inside a pod's network namespace: on its loopback, for a pod that has no interface of a cluster's
// network plugin, by which it would reach [IMDSInWorker] and [EC2InWorker].
var (
	EC2InPod  = netip.MustParseAddrPort("127.0.0.1:8080")
	IMDSInPod = netip.MustParseAddrPort("127.0.0.1:8081")
)

// ServePod has an EC2 API and the metadata of a worker listen inside the network namespace of a pod there, at [EC2InPod] and
// [IMDSInPod]. The caller calls close before it removes the namespace, which would outlive its name otherwise. ctx bounds the
// start only.
func (r *Running) ServePod(ctx context.Context, worker, netnsPath string, ec2 http.Handler) (closeAll func() error, err error) {
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	group := new(errgroup.Group)
	closeAll = func() error {
		stop()
		return group.Wait()
	}
	for at, handler := range map[netip.AddrPort]http.Handler{EC2InPod: ec2, IMDSInPod: r.Metadata[worker]} {
		l, err := pod.Listen(ctx, netnsPath, at)
		if err != nil {
			_ = closeAll() // what was opened closes without an error of its own
			return nil, err
		}
		serve(live, group, l, handler, log.New(io.Discard, "", 0)) // clients that are killed are no news
	}
	return closeAll, nil
}
