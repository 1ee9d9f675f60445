// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package story

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
)

// address of a pod of the story.
func (s *story) address(name string) (netip.Addr, error) {
	p := s.pods[name]
	if p == nil || len(p.nets) == 0 {
		return netip.Addr{}, fmt.Errorf("there is no pod %s with an address", name)
	}
	return p.nets[0].addr, nil
}

// ping sends requests from one pod to another until one is answered.
func (s *story) ping(ctx context.Context, from, to string, limit time.Duration) (time.Duration, error) {
	source := s.pods[from]
	target, err := s.address(to)
	if source == nil || err != nil {
		return 0, errors.Join(err, fmt.Errorf("cannot ping %s from %s", to, from))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return pod.Ping(ctx, source.Netns, target)
}

// reaches asserts that one pod reaches another by ping.
func (s *story) reaches(ctx context.Context, what, from, to string) {
	s.teller.Check(what, func() (string, error) {
		rtt, err := s.ping(ctx, from, to, answer)
		return "reply in " + teller.Round(rtt), err
	})
}

// silent asserts that one pod does not reach another.
func (s *story) silent(ctx context.Context, what, from, to string) {
	s.teller.Check(what, func() (string, error) {
		target, err := s.address(to)
		if err != nil {
			return "", err
		}
		return s.noReply(ctx, from, target)
	})
}

// noReply is what is said of an address that a pod does not reach.
func (s *story) noReply(ctx context.Context, from string, to netip.Addr) (string, error) {
	p := s.pods[from]
	if p == nil {
		return "", fmt.Errorf("there is no pod %s", from)
	}
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	rtt, err := pod.Ping(ctx, p.Netns, to)
	switch {
	case errors.Is(err, pod.ErrNoReply):
		return fmt.Sprintf("no reply for %v", silence), nil
	case err != nil:
		return "", err
	}
	return "", fmt.Errorf("reply in %s", teller.Round(rtt))
}

// answersAtOnce asserts that the first reply to a pod comes well before the VPC's route lag is over: its address was
// routed when ADD returned.
func (s *story) answersAtOnce(ctx context.Context, what, from string, to netip.Addr) {
	s.teller.Check(what, func() (string, error) {
		p := s.pods[from]
		if p == nil {
			return "", fmt.Errorf("there is no pod %s", from)
		}
		limited, cancel := context.WithTimeout(ctx, answer)
		defer cancel()
		begin := time.Now()
		if _, err := pod.Ping(limited, p.Netns, to); err != nil {
			return "", err
		}
		if took := time.Since(begin); took > routeLag/2 {
			return "", fmt.Errorf("first reply only after %s: the address was not routed yet", teller.Round(took))
		}
		return "first reply after " + teller.Since(begin), nil
	})
}

// echoPort is the echo protocol's (RFC 862).
const echoPort = 7

// tcp asserts that a pod exchanges a line with another by TCP.
func (s *story) tcp(ctx context.Context, what, from, to string) {
	s.teller.Check(what, func() (_ string, err error) {
		target, err := s.address(to)
		if err != nil || s.pods[from] == nil {
			return "", errors.Join(err, fmt.Errorf("cannot connect from %s to %s", from, to))
		}
		limited, cancel := context.WithTimeout(ctx, answer)
		defer cancel()
		at := netip.AddrPortFrom(target, echoPort)
		server, err := pod.ServeEcho(limited, s.pods[to].Netns, at)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		took, err := pod.Exchange(limited, s.pods[from].Netns, at)
		return "a line and back in " + teller.Round(took), err
	})
}

// eachNode calls look for every worker with an agent until one fails.
func (s *story) eachNode(look func(*node) error) error {
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		if err := look(s.nodes[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// answers waits until the agent answers a status request, or ends.
func (s *story) answers(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type answer struct{ err error }
	asked := make(chan answer, 1)
	go func() {
		_, err := n.status(ctx)
		asked <- answer{err}
	}()
	select {
	case a := <-asked:
		return a.err
	case err := <-n.ended:
		n.ended <- err
		return fmt.Errorf("the agent ended: %w; its log is %s", err, n.log.Name())
	}
}

// pollInterval is between two looks at an agent's status.
const pollInterval = 100 * time.Millisecond

// until repeats look until it holds or ctx ends; then the error says what was wrong at last.
func until(ctx context.Context, look func() error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// poolENIs is how many ENIs of each worker in the scenario the agents manage.
const poolENIs = 2

// wantedStock is less than the agent's minimum target of 14 by the pods that are there already.
const wantedStock = 10

// stocked waits until every agent has confirmed addresses in stock on each pool ENI.
func (s *story) stocked(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin, free := time.Now(), 0
	err := until(ctx, func() error {
		free = 0
		return s.eachNode(func(n *node) error {
			st, err := n.status(ctx)
			if err != nil {
				return err
			}
			managed := 0
			for _, e := range st.ENIs {
				if !e.Managed {
					continue
				}
				managed++
				stock := 0
				for _, a := range e.Addresses {
					if a.State == "free" {
						stock++
					}
				}
				if free += stock; stock < wantedStock {
					return fmt.Errorf("%s has %d addresses in stock, want %d", e.ID, stock, wantedStock)
				}
			}
			if managed != poolENIs {
				return fmt.Errorf("%d pool ENIs, want %d", managed, poolENIs)
			}
			return nil
		})
	})
	return fmt.Sprintf("%d addresses after %s", free, teller.Since(begin)), err
}

// stateOf is the state of an address in an agent's books.
func (n *node) stateOf(ctx context.Context, addr netip.Addr) (string, error) {
	st, err := n.status(ctx)
	if err != nil {
		return "", err
	}
	for _, e := range st.ENIs {
		for _, a := range e.Addresses {
			if a.Addr == addr {
				return a.State, nil
			}
		}
	}
	return "", fmt.Errorf("the agent does not know %s", addr)
}

// round prints a duration as people read it.
