// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// stranger has an ENI with addresses in the pool's and in the static reservation, and takes and gives back more. Nobody
// may take one from it.
type stranger struct {
	theirs    sync.Mutex
	appliance string // ENI ID
	owns      []netip.Addr
}

// settleStranger makes the stranger's ENI.
func (s *scene) settleStranger() error {
	base := poolRanges[0].Addr()
	for range s.rng.IntN(10) {
		base = base.Next()
	}
	owns := []netip.Addr{base, base.Next(), base.Next().Next(), static.Addr(), static.Addr().Next()}
	e, err := s.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{
		SubnetID: s.lab.Subnets["pods"], Tags: map[string]string{"Name": "appliance"},
		// All out of the reservations: anywhere else EC2 may have chosen one for a worker.
		AddressRequest: vpc.AddressRequest{Primary: owns[0], Secondary: owns[1:]},
	})
	if err != nil {
		return fmt.Errorf("make the stranger's ENI: %w", err)
	}
	s.appliance, s.owns = e.ID, owns
	return nil
}

// meddle has the stranger take a free address of the pool's ranges, or give one back.
func (s *scene) meddle(rng *rand.Rand) {
	s.theirs.Lock()
	defer s.theirs.Unlock()
	const few = 8
	if len(s.owns) > few {
		gone := s.owns[len(s.owns)-1]
		s.owns = s.owns[:len(s.owns)-1]
		if err := s.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), vpc.UnassignInput{NetworkInterfaceID: s.appliance, Addresses: []netip.Addr{gone}}); err != nil {
			s.fail("a stranger's %s was taken away: %v", gone, err)
		}
		s.note("stranger", "gives %s back", gone)
		return
	}
	wanted := addressIn(poolRanges[rng.IntN(len(poolRanges))], rng.IntN(16))
	_, err := s.lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{
		NetworkInterfaceID: s.appliance, Addresses: []netip.Addr{wanted},
	})
	if err == nil && !slices.Contains(s.owns, wanted) {
		s.owns = append(s.owns, wanted)
		s.note("stranger", "takes %s", wanted)
	}
}

func addressIn(p netip.Prefix, n int) netip.Addr {
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// robbed says what the stranger should have and has not.
func (s *scene) robbed() []netip.Addr {
	s.theirs.Lock()
	defer s.theirs.Unlock()
	e, _ := s.lab.Cloud.View(time.Now()).ENI(s.appliance)
	has := e.Addresses()
	return slices.DeleteFunc(slices.Clone(s.owns), func(a netip.Addr) bool { return slices.Contains(has, a) })
}

// forPods reports whether an address may be a pod's.
func forPods(a netip.Addr) bool {
	return slices.ContainsFunc(poolRanges, func(p netip.Prefix) bool { return p.Contains(a) })
}
