// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package pool is the node agent's use of EC2: it keeps a small stock of confirmed addresses on each pool-managed ENI,
// gives them to attachments, takes them back when their network namespace is gone, and survives being killed between
// any two of those steps. The agent door wires it to EC2, the instance metadata, the kernel and the ledger through the
// interfaces of ports.go; which state an address may move to is decided in package ownership. It speaks no protocol
// and knows nothing of CNI's error codes.
package pool

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Config says how a [Node] behaves. [DefaultConfig] has the documented defaults.
type Config struct {
	// WarmIPTarget is how many addresses without a pod each active ENI keeps.
	WarmIPTarget int
	// MinimumIPTarget is how many addresses in all each active ENI keeps at least.
	MinimumIPTarget int
	// Cooldown is how long an address that was given back is kept for the same pod only.
	Cooldown time.Duration
	// ReconcileInterval is how often holds are compared with the network namespaces.
	ReconcileInterval time.Duration
	// MassReapDelay is how long a second look waits when more than half of the holds vanish at once: that is more
	// often a hidden namespace folder than so many dead pods.
	MassReapDelay time.Duration
	// DriftInterval is how often the instance metadata is compared with what we believe.
	DriftInterval time.Duration
	// MaxWait bounds how long an ADD waits for EC2. Multus runs attachments one after the other inside the four
	// minutes that kubelet gives a sandbox.
	MaxWait time.Duration
	// MTU that a link gets which nobody configured: a late ENI on AL2023 is DOWN.
	// https://github.com/awslabs/amazon-eks-ami/issues/2180
	MTU int
	// ActiveSubnets names subnets whose pool ENIs take stock without waiting for a first pod.
	ActiveSubnets []eni.SubnetID
	// Count is told of what happens, Refill of how long it took from a call to addresses in stock, Tell of what the pod's owner should
	// know. They must return at once, and call nothing of the node.
	Count  func(Happening)
	Refill func(time.Duration)
	Tell   func(Notice)
	Log    *slog.Logger
	// Uptime reads CLOCK_BOOTTIME, which no clock change moves.
	Uptime func() time.Duration
	// BootID is the kernel's, to tell a tombstone of an earlier boot.
	BootID string
}

// DefaultConfig is what an agent without configuration does. The targets carry the names and values of the Amazon VPC
// CNI: https://github.com/aws/amazon-vpc-cni-k8s/blob/master/docs/eni-and-ip-target.md
func DefaultConfig() Config {
	return Config{
		WarmIPTarget:      5,
		MinimumIPTarget:   14,
		Cooldown:          30 * time.Second,
		ReconcileInterval: 10 * time.Second,
		MassReapDelay:     30 * time.Second,
		DriftInterval:     time.Minute,
		MaxWait:           15 * time.Second,
		MTU:               9001,
		Count:             func(Happening) {},
		Refill:            func(time.Duration) {},
		Tell:              func(Notice) {},
		Log:               slog.New(slog.DiscardHandler),
	}
}

// Timings that follow from EC2 rather than from taste.
const (
	// settleTime is how long after a write a read from EC2 may still show what was before. EC2 documents no bound;
	// its guide asks for a back-off from a couple of seconds.
	// https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
	settleTime = 10 * time.Second
	// promiseTime is the same for what EC2 said yes to.
	promiseTime = time.Minute
	// orphanAge is how long an address that nobody accounts for must be shown at least before it is adopted. The agent
	// before may have given it back, and reads be behind.
	orphanAge = 3 * settleTime
	// confirmByEC2After is when an address that the instance metadata does not show is looked up in EC2.
	confirmByEC2After = 5 * time.Second
	// lossInterval is how far apart two reads must be that together decide that a held address is lost.
	lossInterval = 5 * time.Second
	// confirmInterval and its slow form poll the instance metadata, which costs no EC2 request.
	confirmInterval     = 200 * time.Millisecond
	slowConfirmInterval = time.Second
	// gatherTime is how long an ADD without stock waits for others that came with it, and topUpInterval how long stock that
	// is not used up waits for more to be taken: EC2 limits calls, not addresses.
	gatherTime    = 20 * time.Millisecond
	topUpInterval = time.Second
	// conflictPause is how long an ENI lets others go first that were faster, doubled with each time in a row up to four
	// times: reads take about a second to show what they took.
	conflictPause = 2 * time.Second
	// windowAge is how old a read of candidates may be.
	windowAge = 20 * time.Second
	// reservationAge is how old the list of reservations may be.
	reservationAge = time.Hour
	// describeAge is the longest interval between full comparisons, the shortest is half of it: on average less than
	// one an hour, at different times on different workers.
	describeAge = 90 * time.Minute
	// backoffBase and backoffCap bound the full-jitter back-off: SDK-style loops made several times the throttled
	// calls. https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
	backoffBase = 500 * time.Millisecond
	backoffCap  = time.Minute
	calm        = 4 // times the base when nobody waits
	// fullPause is how long the word of an exhausted reservation or ENI is good for those who come after. Without a
	// waiter the next look is later and later, up to fullPauseCap.
	fullPause    = 10 * time.Second
	fullPauseCap = 10 * time.Minute
)

// Node is the worker's ENIs with their pools and the attachments that hold addresses. Its methods are safe for
// concurrent use. Make it with [New], run it with [Node.Run].
type Node struct {
	cfg      Config
	instance eni.Instance
	ports    Ports
	log      *slog.Logger

	ready chan struct{} // closed when boot is done

	mu         sync.Mutex
	notReady   string // why boot is not done, for those who wait
	limits     eni.Limits
	ifaces     map[eni.ID]*iface
	holds      map[attachment.Key]*hold
	ours       map[eni.ID]map[unit]entry    // from the ledger, until boot knows the ENIs
	wasActive  map[eni.ID][]kind            // likewise
	rebooted   []Record                     // what a reboot changed in the ledger's holds
	tick       chan struct{}                // wakes the janitor
	described  time.Time                    // when the last good read of all own ENIs began
	pause      time.Time                    // no such read before: the last one failed
	failures   int                          // such reads that failed in a row
	describing chan struct{}                // one such read at a time
	moved      bool                         // an address that pods claim for themselves came to an ENI, or left it
	watch      chan struct{}                // has a value when [Node.Floating] may have changed
	look       chan struct{}                // wakes the comparison with the metadata
	suspects   map[attachment.Key]time.Time // holds whose namespace was gone in a mass disappearance
	folders    map[string]bool              // in which a namespace was seen
	blind      map[string]int               // folders in which none was, with the number of namespaces that were there
	spawn      func(*iface)                 // starts an ENI's worker; set by Run
}

// iface is one ENI of the worker. The fields are guarded by Node.mu but for those of its worker.
type iface struct {
	n *Node
	// What the ENI is, for good: it may be read without the lock.
	id     eni.ID
	mac    eni.MAC
	subnet eni.Subnet

	eni            eni.Interface     // as last read
	reservations   []eni.Reservation // of its subnet, all of them
	reservationsAt time.Time
	classes        map[string]*class // the stock it keeps; empty until it was invited
	link           attachment.Link   // zero when the host has none
	linkProblem    string            // e.g. two links with the ENI's MAC
	foreignMode    string            // ipvlan mode other than l2 that somebody put the link in
	onHost         []unit            // addresses for pods that a link of the host carries
	hostLink       string            // that link
	gone           bool              // no longer attached

	units   map[unit]*entry
	late    map[unit]bool             // where they stand is not in the ledger yet: it was full
	recent  map[unit]time.Time        // left us lately: reads may still show them here
	carried map[unit]attachment.Netns // what a namespace carried at the start though it was in doubt
	waiters []*waiter
	strays  []netip.Addr // that other pods may look for in the wrong place: see [Node.forgetStrays]
	// choosing is how many units of each family EC2 is being asked to choose, which take a slot and have no name yet.
	choosing [2]int

	wake  chan struct{}
	lanes [2]chan struct{} // wake those who take floating addresses, by family: see [iface.lane]
	w     worker
}

// hold is an attachment and what it has.
type hold struct {
	attachment.Attachment
	eni      eni.ID
	addrs    []netip.Addr
	state    ownership.State    // Held, Cooling, Lost, or Guest
	uptime   time.Duration      // CLOCK_BOOTTIME when it was given out
	deadline time.Time          // of the cooldown
	until    time.Duration      // the same in CLOCK_BOOTTIME, for the ledger
	visible  bool               // the agent saw the namespace at ADD, so it may conclude from its absence
	sticky   bool               // goes back to EC2 at once, without a cooldown
	claimed  bool               // by whoever lives in the namespace, and not by a CNI plugin: see [Node.Claim]
	idle     time.Time          // since when its namespace was not seen to carry what it claimed
	floats   bool               // a claimed address that moves from pod to pod
	floating []attachment.Range // whose addresses are claimed when they appear on the interface: see [Node.Floating]
	link     int                // index of the link that its pod's interface was made on; 0 when unknown
	cut      bool               // that link is gone, and it was told
	again    bool               // it came out of a cooldown
	told     int                // answers that gave it out and were not lost
}

// waiter is an ADD that found no stock, or a registration.
type waiter struct {
	hold    *hold
	classes []*class     // one address of each is wanted
	exact   []netip.Addr // or these
	claim   claim        // how the exact ones may be got
	since   time.Time
	retry   time.Time  // when the exact ones are asked for again
	renew   bool       // the exact one is asked for though it is believed to be here: see [Node.Claim]
	alone   bool       // EC2 refused what went with it in one call
	why     string     // what stands in the way of them
	done    chan error // buffered; nil when the hold was granted
}

// failure is why an ENI could not grow, in words for the user.
type failure struct {
	reason Reason
	text   string
	at     time.Time
	final  bool // trying again before something changes is of no use
	slots  bool // it is that the ENI's slots are taken, and ends with that
}

// fresh reports whether the failure is good for those who come now.
func (f *failure) fresh() bool { return time.Since(f.at) <= fullPause }

// New makes the node of an instance from what its ledger held, and records what a reboot made of that before anything
// else is recorded. EC2, metadata and kernel are not asked until [Node.Run].
func New(cfg Config, instance eni.Instance, ports Ports, records []Record, rebooted bool) *Node {
	n := &Node{
		cfg: cfg, instance: instance, ports: ports, log: cfg.Log,
		ready:      make(chan struct{}),
		notReady:   "starting",
		ifaces:     map[eni.ID]*iface{},
		holds:      map[attachment.Key]*hold{},
		ours:       map[eni.ID]map[unit]entry{},
		wasActive:  map[eni.ID][]kind{},
		tick:       make(chan struct{}, 1),
		describing: make(chan struct{}, 1),
		look:       make(chan struct{}, 1),
		watch:      make(chan struct{}, 1),
		suspects:   map[attachment.Key]time.Time{},
		folders:    map[string]bool{},
	}
	n.load(records, rebooted)
	n.settleReboot()
	return n
}

// Run boots the node and works until ctx ends, then returns when everything it started has stopped.
func (n *Node) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	n.mu.Lock()
	n.spawn = func(p *iface) {
		wg.Go(func() { p.run(ctx) })
		wg.Go(func() { p.lane(ctx, false) })
		wg.Go(func() { p.lane(ctx, true) })
	}
	n.mu.Unlock()
	if !n.boot(ctx) {
		return
	}
	wg.Go(func() { n.janitor(ctx) })
	wg.Go(func() { n.drift(ctx) })
	<-ctx.Done()
}

// Ready is closed once the node knows its ENIs and can serve an ADD.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// poke wakes a worker or the janitor; a wake that is pending already suffices.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sleep waits for d or the end of ctx, and says which: false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	nap(ctx, d, nil)
	return ctx.Err() == nil
}

// nap waits for d, a wake or the end of ctx, and reports whether it was the wake. It makes no timer that is due at once: in
// the tests' bubbles the race detector dies when two goroutines look at such timers together. https://go.dev/issue/78156
func nap(ctx context.Context, d time.Duration, wake <-chan struct{}) (woken bool) {
	if d <= 0 {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-wake:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}
