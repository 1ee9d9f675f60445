// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package simulate

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/imds"
	"github.com/multus-vpc/multus-vpc/internal/lab/ec2api"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/metadata"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// region of every simulation.
const region = "us-west-2"

// lags are how late EC2's readers see a change.
func lags() vpc.Propagation {
	return vpc.Propagation{Route: time.Second, IMDS: 2 * time.Second, Describe: time.Second}
}

// weather is the account's endpoint: a round trip, and one token bucket per action for the whole fleet. The size for reads
// is what EC2 documents for those with a filter or pages. unverified: the sizes for reads without either, for writes, and
// that of AssignPrivateIpAddresses. Of replies the share lost does not arrive, though the request took effect.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
func weather(lost float64) front.Weather {
	w := front.Weather{
		Latency: 80 * time.Millisecond,
		Throttle: front.Throttle{
			Default: front.Classes{Read: front.NewBucket(100, 20), Write: front.NewBucket(50, 5)},
			Actions: map[string]front.Bucket{
				actionAssign: *front.NewBucket(100, 5), actionTypes: *front.NewBucket(50, 10), actionSubnets: *front.NewBucket(50, 10),
			},
		},
	}
	if lost > 0 {
		w.Faults = []front.Fault{{Probability: lost, Kind: front.LostReply}}
	}
	return w
}

// account is one account's EC2 in one Region, with the weather that all workers share.
type account struct {
	cloud  *vpc.Cloud
	front  *front.Front
	direct bool // requests skip the SDK and the wire
	owners owners
}

// newAccount makes an empty account. Direct calls meet the same weather and the same rules as those of the real client,
// at a hundredth of the cost.
func newAccount(direct bool, lost float64) (*account, error) {
	a := &account{cloud: vpc.New(vpc.Config{Region: region, Propagation: lags(), Seed: 1}), direct: direct}
	a.owners = owners{cloud: a.cloud, of: map[eni.SubnetID]map[netip.Addr]eni.ID{}, shown: map[string][]netip.Addr{}}
	api := ec2api.Handler(a.cloud, time.Now)
	if direct {
		api = http.HandlerFunc(serveDirect)
	}
	var err error
	a.front, err = front.New(front.Config{API: api, Actions: ec2api.Actions(), Weather: weather(lost)})
	return a, err
}

// clients are what the agent on an instance speaks to EC2 and to the instance metadata with.
func (a *account) clients(w *worker) (pool.EC2, pool.Metadata) {
	if a.direct {
		c := &client{account: a, worker: w, transport: a.front.RoundTripper()}
		return c, metadataOf{c}
	}
	sdk := func(t http.RoundTripper) aws.Config {
		return aws.Config{
			Region:      region,
			Credentials: credentials.NewStaticCredentialsProvider(w.name, "secret", ""),
			HTTPClient:  &http.Client{Transport: t},
		}
	}
	service := metadata.New(metadata.Config{Cloud: a.cloud, InstanceID: string(w.instance.ID)})
	return ec2eni.New(ec2eni.Config{SDK: sdk(a.front.RoundTripper())}), imds.New(imds.Config{SDK: sdk(front.InProcess(service))})
}

// calls are the endpoint's counts so far.
func (a *account) calls() map[front.Call]int {
	counts := map[front.Call]int{}
	for _, c := range a.front.Calls() {
		counts[c.Call] = c.Count
	}
	return counts
}

// owners answers who holds an address as EC2's reads show it, without going through all ENIs each time: only those that
// were written to since the last answer are read again.
type owners struct {
	cloud *vpc.Cloud

	mu     sync.Mutex
	of     map[eni.SubnetID]map[netip.Addr]eni.ID
	shown  map[string][]netip.Addr // by ENI, what of holds of it
	writes []write                 // that of does not have yet, oldest first
}

// write is a call that may have changed an ENI.
type write struct {
	at  time.Time
	eni string
}

// note says that the ENI was written to.
func (o *owners) note(at time.Time, id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writes = append(o.writes, write{at, id})
}

// find returns the owners of the addresses as of a moment that is not before that of the last question.
func (o *owners) find(asOf time.Time, subnet eni.SubnetID, addrs []netip.Addr) map[netip.Addr]eni.ID {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.writes) > 0 && !o.writes[0].at.After(asOf) {
		o.reread(asOf, o.writes[0].eni)
		o.writes = o.writes[1:]
	}
	found := map[netip.Addr]eni.ID{}
	for _, a := range addrs {
		if id, ok := o.of[subnet][a]; ok {
			found[a] = id
		}
	}
	return found
}

func (o *owners) reread(asOf time.Time, id string) {
	e, ok := o.cloud.View(asOf).ENI(id)
	if !ok {
		return
	}
	subnet := eni.SubnetID(e.SubnetID)
	if o.of[subnet] == nil {
		o.of[subnet] = map[netip.Addr]eni.ID{}
	}
	for _, a := range o.shown[id] {
		if o.of[subnet][a] == eni.ID(id) {
			delete(o.of[subnet], a)
		}
	}
	o.shown[id] = e.Addresses()
	for _, a := range o.shown[id] {
		o.of[subnet][a] = eni.ID(id)
	}
}

// operation is what a direct request does when the endpoint lets it through.
type operation func() error

type operationKey struct{}

// serveDirect runs the operation that travels in the request's context.
func serveDirect(w http.ResponseWriter, r *http.Request) {
	op := r.Context().Value(operationKey{}).(operation)
	if err := op(); err != nil {
		writeError(w, err)
	}
}

func withOperation(ctx context.Context, op operation) context.Context {
	return context.WithValue(ctx, operationKey{}, op)
}
