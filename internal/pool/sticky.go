// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// A StatefulSet has at most one pod of each ordinal, so whoever proves by the Kubernetes API to be that pod may have the
// ordinal's address, also from a worker that is cut off and goes on using it:
// https://kubernetes.io/docs/tasks/run-application/force-delete-stateful-set-pod/. The proof is asked for when the
// address is taken, and again when it was lost and seems to be nobody's.

// ordinalAddresses are what a StatefulSet's pod gets: of each family the address at its ordinal in that family's ranges.
func (n *Node) ordinalAddresses(ctx context.Context, pod attachment.Pod, q attachment.Query) ([]netip.Addr, error) {
	want := q.Sticky.StatefulSet
	if n.ports.Pods == nil {
		return nil, &Refusal{Invalid, "sticky: the agent has no access to the Kubernetes API, which says whose pod it is; give it a kubeconfig, or a service account with get on pods"}
	}
	if pod.Name == "" {
		return nil, &Refusal{Invalid, "sticky: the runtime did not say which pod this is (K8S_POD_NAME in CNI_ARGS)"}
	}
	set, ordinal, err := n.ports.Pods.Ordinal(ctx, pod)
	switch {
	case err != nil:
		return nil, &Refusal{NotReady, fmt.Sprintf("sticky: ask the Kubernetes API whose pod it is: %v", err)}
	case set == "":
		return nil, &Refusal{Invalid, fmt.Sprintf("sticky.statefulSet: pod %s/%s belongs to no StatefulSet, so it has no address of %q; use this network for that StatefulSet only", pod.Namespace, pod.Name, want)}
	case set != want:
		return nil, &Refusal{Invalid, fmt.Sprintf("sticky.statefulSet: pod %s/%s belongs to StatefulSet %q, not %q; give each StatefulSet a network of its own", pod.Namespace, pod.Name, set, want)}
	}
	var addrs []netip.Addr
	for _, k := range kindsOf(q) {
		ranges := slices.DeleteFunc(slices.Clone(k.Ranges), func(r attachment.Range) bool { return r.From.Is6() != k.V6 })
		a, ok := attachment.Nth(ranges, uint64(ordinal))
		switch {
		case len(ranges) == 0:
			return nil, &Refusal{Invalid, fmt.Sprintf("sticky: needs ranges with one %s address per ordinal", k.family())}
		case !ok:
			return nil, &Refusal{Invalid, fmt.Sprintf("sticky: ranges %v have no address for ordinal %d of StatefulSet %q; enlarge them", ranges, ordinal, set)}
		case !k.admits(a):
			return nil, &Refusal{Invalid, fmt.Sprintf("sticky: %s, the address of ordinal %d, is in exclude; take it out there, or use other ranges", a, ordinal)}
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// feedsOthers is a reservation that the address lies in and that agents take stock from: another pod may have it.
func (p *iface) feedsOthers(a netip.Addr) (eni.Reservation, bool) {
	i := slices.IndexFunc(p.reservations, func(r eni.Reservation) bool { return r.CIDR.Contains(a) && r.Role() != eni.RoleStatic })
	if i < 0 {
		return eni.Reservation{}, false
	}
	return p.reservations[i], true
}

// replaced reports whether the pod of a sticky hold is, or may be, no longer the one that its StatefulSet has: then its
// address is the next one's, and is not asked for again though nobody owns it at the moment.
func (n *Node) replaced(ctx context.Context, h hold) bool {
	if n.ports.Pods == nil || h.Pod.UID == "" { // nobody can tell
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.MaxWait)
	defer cancel()
	_, _, err := n.ports.Pods.Ordinal(ctx, h.Pod)
	if err != nil {
		n.log.Warn("lost address is not asked for again: the Kubernetes API does not confirm its pod", "ips", h.addrs, "containerID", h.ContainerID,
			"pod", h.Pod.Namespace+"/"+h.Pod.Name, "error", err)
	}
	return err != nil
}

// stickyPause is how soon a sticky address that could not be given back yet is looked at again: another worker waits.
const stickyPause = time.Second
