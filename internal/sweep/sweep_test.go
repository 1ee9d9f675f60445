// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sweep_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/sweep"
)

// midnight is when a synctest bubble begins.
var midnight = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

const usesPool = `{"type": "vpcipvlan", "ipam": {"type": "vpcipam"}}`

// orphansOfEmptyCluster are what is an orphan when there are no pods and no networks.
var orphansOfEmptyCluster = []string{
	"10.10.1.128 orphan: no pod has it", "10.10.1.144 orphan: no pod has it", "10.10.1.80 orphan: no pod has it",
	"10.10.1.81 orphan: no pod has it", "10.10.1.82 orphan: no pod has it", "10.10.2.80 orphan: no pod has it", "2001:db8:10:1:5::80 orphan: no pod has it",
}

func TestOneLookChangesNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, "", func(t *testing.T, w *world) {
		r, err := w.run(sweep.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w.want(r, append(orphansOfEmptyCluster,
			"10.10.1.112 kept: is an agent's stock: scr-",
			"10.10.1.84 kept: "+w.lab.Instances["theirs"]+" is no node of this cluster",
			"2001:db8:10:1::80 kept: may be the worker's own IPv6 address")...)
		w.onENIs(all()...)
		if r.ENIs != 4 || len(w.told) != 0 || w.api.lists != 1 {
			t.Errorf("%d ENIs, told %q, %d lists of pods", r.ENIs, w.told, w.api.lists)
		}
	})
}

func TestOrphansAreFreedAfterASecondLook(t *testing.T) {
	t.Parallel()
	inWorld(t, "", func(t *testing.T, w *world) {
		start := time.Now()
		w.api.pods = []cluster.Pod{pod("upf", "node-1", "10.10.1.80", "10.10.1.144", "2001:db8:10:1:5::80")}
		r, err := w.run(sweep.Options{Free: true})
		if err != nil {
			t.Fatal(err)
		}
		w.want(r, "10.10.1.81 freed: no pod", "10.10.1.82 freed: no pod", "10.10.2.80 freed: no pod", "10.10.1.128 freed: no pod",
			"10.10.1.80 kept: pod default/upf has it", "10.10.1.144 kept: pod default/upf", "2001:db8:10:1:5::80 kept: pod default/upf")
		w.onENIs(without("10.10.1.81", "10.10.1.82", "10.10.2.80", "10.10.1.128")...)
		if took := time.Since(start); took < sweep.DefaultWait || w.api.lists != 2 {
			t.Errorf("took %v and %d lists of pods", took, w.api.lists)
		}
		if told := strings.Join(w.told, "\n"); !strings.Contains(told, "the second look is in 1m0s") || !strings.Contains(told, "the second look is in 10s") ||
			!strings.Contains(told, "freeing 2 addresses of eni-") {
			t.Errorf("told %s", told)
		}
		r, err = w.run(sweep.Options{Free: true})
		if err != nil || r.Count(sweep.Orphan)+r.Count(sweep.Freed) != 0 || w.api.lists != 3 {
			t.Errorf("a second sweep: %+v, %v, %d lists", r, err, w.api.lists)
		}
	})
}

func TestWhatPodsMayHaveIsKept(t *testing.T) {
	t.Parallel()
	ranges := func(s string) []attachment.Range {
		r, err := attachment.ParseRange(s)
		if err != nil {
			t.Fatal(err)
		}
		return []attachment.Range{r}
	}
	edit := func(p cluster.Pod, change func(*cluster.Pod)) cluster.Pod { change(&p); return p }
	unsettled := edit(pod("new", "node-1"), func(p *cluster.Pod) { delete(p.Annotations, cluster.AnnotationNetworkStatus) })
	kept := func(reason string) []string { return []string{"10.10.1.80 kept: " + reason} }
	for name, tc := range map[string]struct {
		pods     []cluster.Pod
		networks []cluster.Network
		lost     string // a node
		options  sweep.Options
		want     []string // about the addresses that the case is about
	}{
		"nobody":                      {want: []string{"10.10.1.80 orphan: no pod has it"}},
		"a pod's first interface":     {pods: []cluster.Pod{{Namespace: "a", Name: "b", IPs: []netip.Addr{netip.MustParseAddr("10.10.1.80")}}}, want: kept("pod a/b has it")},
		"a status with prefix length": {pods: []cluster.Pod{pod("p", "node-1", "10.10.1.80/24")}, want: kept("pod default/p has it")},
		"the annotation of old": {pods: []cluster.Pod{edit(pod("p", "node-1"), func(p *cluster.Pod) {
			p.Annotations = map[string]string{cluster.AnnotationOldStatus: `[{"name": "n", "ips": ["10.10.1.80"]}]`}
		})}, want: kept("pod default/p has it")},
		"a pod that ended":               {pods: []cluster.Pod{edit(pod("p", "node-1", "10.10.1.80"), func(p *cluster.Pod) { p.Ended = true })}, want: []string{"10.10.1.80 orphan: pod default/p has ended"}},
		"a pod on another worker":        {pods: []cluster.Pod{pod("p", "node-2", "10.10.1.80")}, want: kept("pod default/p has it")},
		"a pod that is being set up":     {pods: []cluster.Pod{unsettled}, want: kept("pod default/new is being set up on this worker")},
		"one that was taken up just now": {pods: []cluster.Pod{edit(unsettled, func(p *cluster.Pod) { p.Started = midnight.Add(-4 * time.Minute) })}, want: kept("pod default/new is being set up")},
		"one that gets nowhere":          {pods: []cluster.Pod{edit(unsettled, func(p *cluster.Pod) { p.Started = midnight.Add(-6 * time.Minute) })}, want: []string{"10.10.1.80 orphan"}},
		"one that is so elsewhere":       {pods: []cluster.Pod{edit(unsettled, func(p *cluster.Pod) { p.Node = "node-2" })}, want: []string{"10.10.1.80 orphan"}},
		"one on a node without a name":   {pods: []cluster.Pod{edit(unsettled, func(p *cluster.Pod) { p.Node = "node-9" })}, want: kept("pod default/new is being set up")},
		"one that is not scheduled":      {pods: []cluster.Pod{edit(unsettled, func(p *cluster.Pod) { p.Node = "" })}, want: []string{"10.10.1.80 orphan"}},
		"one of the host's network":      {pods: []cluster.Pod{edit(unsettled, func(p *cluster.Pod) { p.HostNetwork = true })}, want: []string{"10.10.1.80 orphan"}},
		"a sidecar": {pods: []cluster.Pod{edit(pod("p", "node-1"), func(p *cluster.Pod) {
			p.Containers = []cluster.Container{{Command: []string{"/sidecar"}}}
		})}, want: kept("pod default/p on this worker has a sidecar")},
		"a sidecar, and a range": {pods: []cluster.Pod{edit(pod("p", "node-1"), func(p *cluster.Pod) {
			p.Containers = []cluster.Container{{Command: []string{"/bin/sh", "-c", "/app/script.sh sidecar"}}}
		})}, options: sweep.Options{Ranges: ranges("10.10.1.80-10.10.1.81")}, want: []string{"10.10.1.80 orphan", "10.10.1.81 orphan"}},
		"a container's floating range": {pods: []cluster.Pod{edit(pod("p", "node-2"), func(p *cluster.Pod) {
			p.Containers = []cluster.Container{{Command: []string{"/sidecar"}, Env: map[string]string{"MULTUS_VPC_FLOATING": "10.10.9.0/24, 10.10.1.80"}}}
		})}, want: kept("pod default/p lets it float")},
		"a container's floating flag": {pods: []cluster.Pod{edit(pod("p", "node-2"), func(p *cluster.Pod) {
			p.Containers = []cluster.Container{{Command: []string{"/sidecar", "--floating", "10.10.1.80/31"}}}
		})}, want: kept("pod default/p lets it float")},
		"a pod's floating range": {pods: []cluster.Pod{edit(pod("p", "node-2"), func(p *cluster.Pod) {
			p.Annotations[cluster.AnnotationFloating] = "10.10.1.80/31"
		})}, want: kept("pod default/p lets it float")},
		"a network's floating range": {networks: []cluster.Network{network(`{"plugins": [{"type": "vpcipvlan", "floating": ["10.10.1.64/27"], "ipam": {"type": "whereabouts"}}]}`)}, want: kept("network default/n lets it float")},
		"a network's floating annotation": {
			networks: []cluster.Network{{Namespace: "a", Name: "b", Config: `{}`, Annotations: map[string]string{cluster.AnnotationFloating: "10.10.1.80"}}},
			want:     kept("network a/b lets it float"),
		},
		"a status that is no JSON": {pods: []cluster.Pod{edit(pod("p", "node-1"), func(p *cluster.Pod) {
			p.Annotations[cluster.AnnotationNetworkStatus] = `[{"ips": ["10.10.1.`
		})}, want: kept("pod default/p: annotation k8s.v1.cni.cncf.io/network-status: unexpected end")},
		"one elsewhere": {pods: []cluster.Pod{edit(pod("p", "node-2"), func(p *cluster.Pod) {
			p.Annotations[cluster.AnnotationNetworkStatus] = `[{"ips": ["10.10.1.`
		})}, want: []string{"10.10.1.80 orphan"}},
		"a status with no address": {pods: []cluster.Pod{pod("p", "node-1", "ten")}, want: kept(`pod default/p: annotation k8s.v1.cni.cncf.io/network-status: ParseAddr("ten")`)},
		"a floating range that is none": {pods: []cluster.Pod{edit(pod("p", "node-9"), func(p *cluster.Pod) {
			p.Annotations[cluster.AnnotationFloating] = "10.10.1.9-10.10.1.8"
		})}, want: kept("pod default/p: floating addresses: ")},
		"a network that is no JSON":              {networks: []cluster.Network{network("{")}, want: kept("may be an agent's stock: network default/n has EC2 choose")},
		"a worker that is cut off":               {lost: "node-1", want: kept("its worker is not ready, and what runs there is not known")},
		"another that is cut off":                {lost: "node-2", want: []string{"10.10.1.80 orphan"}},
		"--keep":                                 {options: sweep.Options{Keep: ranges("10.10.1.80/31")}, want: kept("--keep says so")},
		"no reservation, and pools":              {networks: []cluster.Network{network(usesPool)}, want: []string{"10.10.1.80 orphan"}},
		"no reservation, and EC2 chooses":        {networks: []cluster.Network{network(`{"ipam": {"type": "vpcipam", "source": "subnet"}}`)}, want: kept("may be an agent's stock: network default/n has EC2 choose")},
		"a reservation that says nothing":        {want: []string{"10.10.1.128 orphan"}},
		"the same, and pools":                    {networks: []cluster.Network{network(usesPool)}, want: []string{"10.10.1.128 kept: may be an agent's stock: network default/n may draw on scr-"}},
		"the same, and a configuration file":     {networks: []cluster.Network{network("")}, want: []string{"10.10.1.128 kept: may be an agent's stock: network default/n"}},
		"the same, and prefixes":                 {networks: []cluster.Network{network(`{"ipam": {"type": "vpcipam", "source": "prefix"}}`)}, want: []string{"10.10.1.128 orphan"}},
		"a static reservation, and pools":        {networks: []cluster.Network{network(usesPool)}, want: []string{"10.10.1.144 orphan"}},
		"an IPv6 address":                        {want: []string{"2001:db8:10:1::80 kept: may be the worker's own"}},
		"an IPv6 address in a range":             {options: sweep.Options{Ranges: ranges("2001:db8:10:1::/64")}, want: []string{"2001:db8:10:1::80 orphan", "2001:db8:10:1:5::80 orphan"}},
		"another cluster's worker":               {want: []string{"10.10.1.84 kept: i-"}},
		"an ENI that carries the cluster":        {options: sweep.Options{Cluster: "core"}, want: []string{"10.10.1.80 orphan"}},
		"a subnet that is not looked at":         {options: sweep.Options{Subnets: []eni.SubnetID{"subnet-00000000000000000"}}, want: nil},
		"an ENI that does not carry the cluster": {options: sweep.Options{Cluster: "edge"}, want: nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, "", func(t *testing.T, w *world) {
				w.api.pods, w.api.networks = tc.pods, tc.networks
				for i, n := range w.api.nodes {
					w.api.nodes[i].Lost = n.Name == tc.lost
				}
				r, err := w.run(tc.options)
				if err != nil {
					t.Fatal(err)
				}
				r.Findings = only(r.Findings, tc.want...)
				w.want(r, tc.want...)
			})
		})
	}
}

// only are the findings about the addresses that the lines begin with; all without a line.
func only(all []sweep.Finding, lines ...string) []sweep.Finding {
	return slices.DeleteFunc(all, func(f sweep.Finding) bool {
		about := func(line string) bool { return strings.HasPrefix(line, f.Address.String()+" ") }
		return len(lines) > 0 && !slices.ContainsFunc(lines, about)
	})
}

// TestTheAPIFails: then nothing is freed.
func TestTheAPIFails(t *testing.T) {
	t.Parallel()
	for look, want := range map[int]string{1: "no route", 2: "no route"} {
		inWorld(t, "", func(t *testing.T, w *world) {
			w.api.before = func(n int) error { return map[int]error{look: errors.New("no route")}[n] }
			r, err := w.run(sweep.Options{Free: true})
			if err == nil || err.Error() != want || len(r.Findings) != 0 {
				t.Errorf("look %d: %+v, %v; want %q", look, r, err, want)
			}
			w.onENIs(all()...)
		})
	}
}

// TestBetweenTheLooks: who comes while the sweep waits keeps what it has.
func TestBetweenTheLooks(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		second func(*world)
		want   string
	}{
		"a pod gets it": {func(w *world) { w.api.pods = []cluster.Pod{pod("late", "node-1", "10.10.1.80")} }, "10.10.1.80 kept: pod default/late has it"},
		"a pod is scheduled": {func(w *world) {
			p := pod("late", "node-1")
			delete(p.Annotations, cluster.AnnotationNetworkStatus)
			w.api.pods = []cluster.Pod{p}
		}, "10.10.1.80 kept: pod default/late is being"},
		"a NAD lets it float": {func(w *world) { w.api.networks = []cluster.Network{network(`{"floating": ["10.10.1.80"]}`)} }, "10.10.1.80 kept: network default/n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, "", func(t *testing.T, w *world) {
				w.onTell = func(line string) {
					if line == "the second look is in 30s" {
						tc.second(w)
					}
				}
				r, err := w.run(sweep.Options{Free: true, Ranges: []attachment.Range{{From: netip.MustParseAddr("10.10.1.80"), To: netip.MustParseAddr("10.10.1.80")}}})
				if err != nil {
					t.Fatal(err)
				}
				w.want(r, tc.want)
				w.onENIs(all()...)
			})
		})
	}
	t.Run("it moves to another ENI", func(t *testing.T) {
		t.Parallel()
		inWorld(t, "", func(t *testing.T, w *world) {
			w.api.before = func(n int) error {
				if n == 1 {
					must(t, w.EC2.(assigner).Assign(t.Context(), w.eni("worker-2", 1), addrs("10.10.1.80"), true))
				}
				return nil
			}
			r, err := w.run(sweep.Options{Free: true})
			if err != nil {
				t.Fatal(err)
			}
			const moved = "10.10.1.80 kept: was no orphan at the first look"
			r.Findings = only(r.Findings, moved)
			w.want(r, moved)
		})
	})
	t.Run("it is cancelled", func(t *testing.T) {
		t.Parallel()
		inWorld(t, "", func(t *testing.T, w *world) {
			ctx, cancel := context.WithTimeout(t.Context(), sweep.DefaultWait/2)
			defer cancel()
			r, err := w.Run(ctx, sweep.Options{Free: true, Wait: sweep.DefaultWait})
			if !errors.Is(err, context.DeadlineExceeded) || r.Count(sweep.Orphan) != len(orphansOfEmptyCluster) {
				t.Errorf("%+v, %v", r, err)
			}
			w.onENIs(all()...)
		})
	})
}
