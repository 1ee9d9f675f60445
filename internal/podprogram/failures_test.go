// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/front"
)

// always answers every call of an action with a code, and has no effect.
func always(action, code string) []front.Fault {
	return []front.Fault{{Action: action, Probability: 1, Kind: front.ErrorBefore, Code: code}}
}

// twice makes the first two calls of an action go wrong.
func twice(action string, kind front.Kind, code string) []front.Fault {
	return []front.Fault{{Action: action, Nth: 1, Count: 2, Kind: kind, Code: code}}
}

const (
	assign, assignV6, unassign = "AssignPrivateIpAddresses", "AssignIpv6Addresses", "UnassignPrivateIpAddresses"
	interfaces, subnets        = "DescribeNetworkInterfaces", "DescribeSubnets"
)

// TestInitContainerSaysWhatWentWrong: each code that EC2 answers and each thing that a pod can lack, what comes of it: the exit
// code, the words where Kubernetes shows them, and who has the address then.
func TestInitContainerSaysWhatWentWrong(t *testing.T) {
	t.Parallel()
	tests := map[string]failure{
		// What EC2 never grants.
		"EC2 says: outside the subnet":              {addrs: []string{"10.10.9.9/24"}, exit: ExitFailed, says: []string{"10.10.9.9", "not in subnet", "10.10.1.0/24", "give the pod an address of the ENI's subnet"}},
		"EC2 says: reserved":                        {addrs: []string{"10.10.1.3/24"}, exit: ExitFailed, says: []string{"10.10.1.3", "keeps for itself"}},
		"the ENI's primary address":                 {addrs: []string{"10.10.1.20/24"}, exit: ExitFailed, says: []string{"10.10.1.20", "primary address of eni-", "keep it out of the pods' range"}, owners: map[string]string{"10.10.1.20": "worker-1"}},
		"another ENI's primary address":             {addrs: []string{"10.10.1.21/24"}, env: "MULTUS_VPC_ON_CONFLICT=reassign", exit: ExitFailed, says: []string{"10.10.1.21", "refused", "primary address of interface eni-"}, owners: map[string]string{"10.10.1.21": "worker-2"}},
		"InvalidParameterValue: in use, never":      {addrs: []string{"10.10.1.41/24"}, env: "MULTUS_VPC_ON_CONFLICT=never", exit: ExitFailed, says: []string{"10.10.1.41", "held by another ENI: eni-"}, owners: map[string]string{"10.10.1.41": "worker-2"}},
		"InvalidParameterValue: in use, a stranger": {addrs: []string{"10.10.1.31/24"}, exit: ExitFailed, says: []string{"10.10.1.31", "held by another ENI: eni-", "not tagged"}, owners: map[string]string{"10.10.1.31": "stranger"}},
		"InvalidParameterValue: in use, IPv6":       {addrs: []string{"2001:db8:10:1::41/64"}, env: "MULTUS_VPC_ON_CONFLICT=never", exit: ExitFailed, says: []string{"2001:db8:10:1::41", "held by another ENI: eni-"}, owners: map[string]string{"2001:db8:10:1::41": "worker-2"}},
		"InsufficientFreeAddressesInSubnet":         {faults: always(assign, "InsufficientFreeAddressesInSubnet"), exit: ExitFailed, says: []string{"10.10.1.80", "subnet full", "InsufficientFreeAddressesInSubnet"}},
		"InsufficientCidrBlocks":                    {faults: always(assign, "InsufficientCidrBlocks"), exit: ExitFailed, says: []string{"10.10.1.80", "InsufficientCidrBlocks"}},
		"InvalidParameterCombination":               {faults: always(assign, "InvalidParameterCombination"), exit: ExitFailed, says: []string{"10.10.1.80", "refused", "InvalidParameterCombination"}},
		"InvalidParameter":                          {faults: always(assign, "InvalidParameter"), exit: ExitFailed, says: []string{"refused", "InvalidParameter"}},
		"MissingParameter":                          {faults: always(assign, "MissingParameter"), exit: ExitFailed, says: []string{"refused", "MissingParameter"}},
		"UnauthorizedOperation":                     {faults: always(assign, "UnauthorizedOperation"), exit: ExitFailed, says: []string{"10.10.1.80", "UnauthorizedOperation", "allow ec2:AssignPrivateIpAddresses"}},
		"UnauthorizedOperation for IPv6 alone":      {addrs: []string{"10.10.1.80/24", "2001:db8:10:1::80/64"}, faults: always(assignV6, "UnauthorizedOperation"), exit: ExitFailed, says: []string{"2001:db8:10:1::80", "allow ec2:AssignPrivateIpAddresses, ec2:AssignIpv6Addresses"}},

		// What may pass, and does not in time.
		"PrivateIpAddressLimitExceeded":              {faults: always(assign, "PrivateIpAddressLimitExceeded"), exit: ExitTimeout, says: []string{"10.10.1.80", "eni-", "as many addresses as its instance type allows", "more workers or ENIs"}},
		"RequestLimitExceeded, for as long as asked": {faults: always(assign, "RequestLimitExceeded"), exit: ExitTimeout, says: []string{"10.10.1.80", "RequestLimitExceeded"}},
		"Throttling":                          {faults: always(assign, "Throttling"), exit: ExitTimeout, says: []string{"Throttling"}},
		"InvalidNetworkInterfaceID.NotFound":  {faults: always(assign, "InvalidNetworkInterfaceID.NotFound"), exit: ExitTimeout, says: []string{"eni-", "has gone", "InvalidNetworkInterfaceID.NotFound"}},
		"InternalError, for as long as asked": {faults: always(assign, "InternalError"), exit: ExitTimeout, says: []string{"10.10.1.80", "InternalError"}},
		"EC2 does not say who has it":         {faults: always(interfaces, "UnauthorizedOperation"), exit: ExitTimeout, says: []string{"10.10.1.80", "UnauthorizedOperation"}, owners: map[string]string{"10.10.1.80": "worker-1"}},
		"EC2 does not say what the subnet is": {faults: always(subnets, "UnauthorizedOperation"), exit: ExitTimeout, says: []string{"read subnet subnet-", "UnauthorizedOperation"}},
		"EC2 shows it too late":               {ec2: "ec2: {propagation: {route: 1s, imds: 10m, describe: 10m}}", exit: ExitTimeout, says: []string{"10.10.1.80"}, owners: map[string]string{"10.10.1.80": "worker-1"}},

		// What passes.
		"InvalidParameterValue: in use, waited for": {addrs: []string{"10.10.1.41/24"}, owners: map[string]string{"10.10.1.41": "worker-1"}},
		"IPv6 in use, waited for":                   {addrs: []string{"2001:db8:10:1::41/64"}, owners: map[string]string{"2001:db8:10:1::41": "worker-1"}},
		"Resource.AlreadyAssigned, of nobody":       {faults: twice(assign, front.ErrorBefore, "Resource.AlreadyAssigned")},
		"InvalidIPAddress.InUse, of nobody":         {faults: twice(assign, front.ErrorBefore, "InvalidIPAddress.InUse")},
		"InternalFailure, twice":                    {faults: twice(assign, front.ErrorBefore, "InternalFailure")},
		"Unavailable, twice":                        {faults: twice(assign, front.ErrorBefore, "Unavailable")},
		"ServiceUnavailable, twice":                 {faults: twice(assign, front.ServerError, "ServiceUnavailable")},
		"InternalError, after it took effect":       {faults: twice(assign, front.ErrorAfter, "InternalError")},
		"a lost reply":                              {faults: twice(assign, front.LostReply, "")},
		"a lost reply of IPv6":                      {addrs: []string{"2001:db8:10:1::80/128"}, faults: twice(assignV6, front.LostReply, "")},
		"RequestLimitExceeded, twice":               {faults: twice(assign, front.ErrorBefore, "RequestLimitExceeded")},
		"slow visibility":                           {ec2: "ec2: {propagation: {route: 1s, imds: 8s, describe: 9s}}"},
		"already there":                             {addrs: []string{"10.10.1.22/24"}, owners: map[string]string{"10.10.1.22": "worker-1"}},

		// The pod.
		"an interface that is late":           {pod: func(p *pod) { p.hide(); time.AfterFunc(20*time.Second, p.show) }},
		"an interface that never comes":       {pod: (*pod).hide, exit: ExitTimeout, says: []string{"interface net1 has not appeared"}, owners: map[string]string{"10.10.1.80": ""}},
		"an interface without address":        {addrs: []string{}, exit: ExitTimeout, says: []string{"interface net1 has no address"}},
		"an interface that was renamed":       {pod: func(p *pod) { p.interfaces[1].Name = "n6" }, exit: ExitTimeout, says: []string{"interface net1 has not appeared"}, owners: map[string]string{"10.10.1.80": "worker-1"}},
		"a macvlan interface":                 {pod: func(p *pod) { p.interfaces[1].Kind = "macvlan" }, exit: ExitFailed, says: []string{"net1", "macvlan", "use ipvlan in mode l2"}, owners: map[string]string{"10.10.1.80": ""}},
		"a child of something that is no ENI": {pod: func(p *pod) { p.interfaces[1].MAC = "0a:00:00:00:00:02" }, exit: ExitTimeout, says: []string{"net1", "0a:00:00:00:00:02", "no ENI with MAC"}, owners: map[string]string{"10.10.1.80": ""}},
		"no network at all":                   {env: "MULTUS_VPC_NETWORKS=", addrs: []string{}, pod: (*pod).hide, exit: ExitFailed, says: []string{"the pod has no ipvlan interface", "k8s.v1.cni.cncf.io/networks"}},

		// The way to AWS.
		"IMDS out of reach":                   {noIMDS: true},
		"IMDS out of reach, another worker":   {noIMDS: true, env: "MULTUS_VPC_NODE_ADDRESS=10.10.12.99", exit: ExitTimeout, says: []string{"no ENI with MAC", "on the worker 10.10.12.99"}, owners: map[string]string{"10.10.1.80": ""}},
		"IMDS out of reach, and no Region":    {noIMDS: true, noRegion: true, exit: ExitFailed, says: []string{"set AWS_REGION"}, owners: map[string]string{"10.10.1.80": ""}},
		"no agent behind the socket's folder": {env: "MULTUS_VPC_VIA=agent", exit: ExitTimeout, says: []string{"10.10.1.80", "no agent listens on /nowhere/sync.sock"}, owners: map[string]string{"10.10.1.80": ""}},
		"no Region, which the metadata gives": {noRegion: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { tt.run(t) })
		})
	}
}

// failure is a case of [TestInitContainerSaysWhatWentWrong].
type failure struct {
	addrs    []string // that the pod carries; nil: 10.10.1.80/24
	ec2      string   // how EC2 behaves
	faults   []front.Fault
	env      string // NAME=value
	pod      func(*pod)
	noIMDS   bool
	noRegion bool

	exit   int
	says   []string
	owners map[string]string // by address; nil: the pod's worker has all of them if it ended well, and nobody otherwise
}

func (f failure) run(t *testing.T) {
	if f.addrs == nil {
		f.addrs = []string{"10.10.1.80/24"}
	}
	w := newWorld(t, f.ec2)
	w.noIMDS, w.noRegion = f.noIMDS, f.noRegion
	if err := w.lab.Front.SetFaults(f.faults); err != nil {
		t.Fatal(err)
	}
	p := w.pod(f.addrs...)
	if f.pod != nil {
		f.pod(p)
	}
	r := w.start(t, "initcontainer", Once, p, f.env)
	if got := r.wait(); got != f.exit {
		t.Fatalf("exit code %d, want %d: %s", got, f.exit, r.message())
	}
	for _, s := range f.says {
		if message := r.message(); !strings.Contains(message, s) {
			t.Errorf("the termination message does not say %q:\n%s", s, message)
		}
	}
	if f.exit == ExitOK && r.message() != "" {
		t.Errorf("it ended well, and says %q", r.message())
	}
	if f.owners == nil {
		f.owners = map[string]string{}
		for _, a := range f.addrs {
			f.owners[strings.Split(a, "/")[0]] = map[bool]string{true: "worker-1"}[f.exit == ExitOK]
		}
		if strings.Contains(t.Name(), "alone") {
			f.owners["10.10.1.80"] = "worker-1" // the family that EC2 allows
		}
	}
	for a, want := range f.owners {
		if got := w.owner(a); got != want {
			t.Errorf("%s is on %q, want %q", a, got, want)
		}
	}
}

// TestSidecarOutlivesWhatGoesWrong: a sidecar goes on trying, says so, and ends with what it has cleaned up.
func TestSidecarOutlivesWhatGoesWrong(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		faults []front.Fault
		during func(*testing.T, *world, *pod, *running) // between the start and SIGTERM
		exit   int
		says   []string
		owner  string // of 10.10.1.80 in the end
	}{
		"EC2 fails for a minute": {
			faults: always(assign, "InternalError"),
			during: func(t *testing.T, w *world, _ *pod, r *running) {
				time.Sleep(time.Minute)
				r.says(t, "address not registered")
				w.faults(t, nil)
				w.await(t, "10.10.1.80", "worker-1")
			},
		},
		"no permission, until somebody gives it": {
			faults: always(assign, "UnauthorizedOperation"),
			during: func(t *testing.T, w *world, _ *pod, r *running) {
				time.Sleep(10 * time.Minute)
				r.says(t, "allow ec2:AssignPrivateIpAddresses")
				if calls := w.calls(assign); calls > 12 {
					t.Errorf("%d calls in ten minutes", calls)
				}
				w.faults(t, nil)
				w.await(t, "10.10.1.80", "worker-1")
			},
		},
		"the interface is renamed": {
			during: func(t *testing.T, w *world, p *pod, _ *running) {
				w.await(t, "10.10.1.80", "worker-1")
				p.rename("n6")
				time.Sleep(5 * time.Minute)
				if got := w.owner("10.10.1.80"); got != "worker-1" {
					t.Errorf("it is on %q", got)
				}
			},
		},
		"the interface is removed": {
			during: func(t *testing.T, w *world, p *pod, _ *running) {
				w.await(t, "10.10.1.80", "worker-1")
				p.hide()
				w.await(t, "10.10.1.80", "")
			},
		},
		"the interface comes, goes and comes": {
			during: func(t *testing.T, w *world, p *pod, _ *running) {
				w.await(t, "10.10.1.80", "worker-1")
				p.hide()
				w.await(t, "10.10.1.80", "")
				p.show()
				w.await(t, "10.10.1.80", "worker-1")
			},
		},
		"no permission to give it back": {
			during: func(t *testing.T, w *world, _ *pod, _ *running) {
				w.await(t, "10.10.1.80", "worker-1")
				w.faults(t, always(unassign, "UnauthorizedOperation"))
			},
			exit: ExitFailed, says: []string{"unassign from eni-", "UnauthorizedOperation"}, owner: "worker-1",
		},
		"EC2 is away when it ends, for longer than the grace": {
			during: func(t *testing.T, w *world, _ *pod, _ *running) {
				w.await(t, "10.10.1.80", "worker-1")
				w.faults(t, always(unassign, "InternalError"))
			},
			exit: ExitTimeout, says: []string{"unassign from eni-", "InternalError"}, owner: "worker-1",
		},
		"EC2 throttles when it ends": {
			during: func(t *testing.T, w *world, _ *pod, _ *running) {
				w.await(t, "10.10.1.80", "worker-1")
				w.faults(t, twice(unassign, front.ErrorBefore, "RequestLimitExceeded"))
			},
		},
		"the reply to what it gives back is lost": {
			during: func(t *testing.T, w *world, _ *pod, _ *running) {
				w.await(t, "10.10.1.80", "worker-1")
				w.faults(t, []front.Fault{{Action: unassign, Nth: 1, Count: 1, Kind: front.LostReply}})
			},
		},
		"another ENI takes it, and it is not given back from there": {
			during: func(t *testing.T, w *world, _ *pod, r *running) {
				w.await(t, "10.10.1.80", "worker-1")
				w.move(t, "worker-2", "10.10.1.80")
				time.Sleep(3 * time.Minute)
				r.says(t, "address contested")
			},
			owner: "worker-2",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "")
				w.faults(t, tt.faults)
				p := w.pod("10.10.1.80/24")
				r := w.start(t, "sidecar", Stay, p, "")
				tt.during(t, w, p, r)
				if r.ended() {
					t.Fatalf("it ended by itself: %s", r.message())
				}
				r.terminate()
				if got := r.wait(); got != tt.exit {
					t.Errorf("exit code %d, want %d: %s", got, tt.exit, r.message())
				}
				for _, s := range tt.says {
					if message := r.message(); !strings.Contains(message, s) {
						t.Errorf("the termination message does not say %q:\n%s", s, message)
					}
				}
				if got := w.owner("10.10.1.80"); got != tt.owner {
					t.Errorf("in the end it is on %q, want %q", got, tt.owner)
				}
			})
		})
	}
}

// TestTheTerminationMessageFits what Kubernetes keeps of it: 4096 bytes.
// https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
func TestTheTerminationMessageFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		w.faults(t, always(assign, "RequestLimitExceeded"))
		var addrs []string
		for i := range 40 {
			addrs = append(addrs, netipString(i))
		}
		r := w.start(t, "initcontainer", Once, w.pod(addrs...), "")
		if got := r.wait(); got != ExitTimeout {
			t.Errorf("exit code %d", got)
		}
		if n := len(r.message()); n == 0 || n > 4096 {
			t.Errorf("the message has %d bytes", n)
		}
		if text, err := os.ReadFile(r.dead); err != nil || !strings.Contains(string(text), "RequestLimitExceeded") {
			t.Errorf("%s, %v", text, err)
		}
	})
}
