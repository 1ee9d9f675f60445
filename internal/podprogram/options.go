// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// Mode is what a program does.
type Mode string

// The modes.
const (
	// Once registers the pod's addresses and ends: an init container.
	Once Mode = "once"
	// Stay keeps them registered until SIGTERM, and then gives them back: a sidecar.
	Stay Mode = "stay"
	// Ask asks the sidecar of this pod whether all is registered: its startup and readiness probe.
	Ask Mode = "ask"
)

// words are how a mode is called on the command line. The first two are the arguments of the AWS samples' image.
// https://github.com/aws-samples/eks-automated-ipmgmt-multus-pods
var words = map[string]Mode{"initContainers": Once, "sidecar": Stay, "ready": Ask}

// Via is the way to EC2.
type Via string

// The ways.
const (
	ViaAuto  Via = "auto"  // the agent when its socket's folder is mounted, else EC2
	ViaAgent Via = "agent" // the node agent's sync socket: the pod needs no credentials
	ViaEC2   Via = "ec2"
)

// options are the programs' flags. Each has an environment variable as its default.
type options struct {
	mode           Mode
	via            Via
	socket         string
	promise        podsync.Promise
	timeout        time.Duration
	wait           time.Duration // of Ask; 0 asks once
	grace          time.Duration
	nodeAddress    netip.Addr
	metricsAddress string
	terminationLog string
	logLevel       slog.Level
	sync           podsync.Config
	announcer      *announcer // nil where the node agent sees to the neighbours
}

const usage = `%s has EC2 know the addresses that this pod carries on its ipvlan interfaces, so that the VPC routes them here.

usage: %[1]s [flags] [initContainers | sidecar | ready]

  initContainers  registers them once and ends (the default of initcontainer)
  sidecar         keeps them registered until SIGTERM, floating ones included (the default of sidecar)
  ready           asks this pod's sidecar whether all is registered: for startup and readiness probes

Exit codes: 0 done, 1 an address cannot be registered, 2 wrong flags, 3 not in time.

Where the folder of the node agent's socket is mounted, the agent does it, by its own configuration, and the pod needs no credentials.
Else the AWS SDK's own variables choose region, credentials and endpoints (AWS_REGION, AWS_ENDPOINT_URL_EC2). Where pods do not reach the
instance metadata, set AWS_REGION, and MULTUS_VPC_NODE_ADDRESS from status.hostIP.

Flags (environment variable):
`

// parse reads flags and environment, and reports everything that is wrong with them at once.
func parse(program string, mode Mode, args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	o := options{mode: mode, sync: podsync.DefaultConfig()}
	fs := flag.NewFlagSet(program, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // an error is told once, by Run
	text := func(name, env, def, use string) *string {
		if v := getenv(env); v != "" {
			def = v
		}
		return fs.String(name, def, fmt.Sprintf("%s (%s)", use, env))
	}
	networks := text("networks", "MULTUS_VPC_NETWORKS", "", "the pod's annotation k8s.v1.cni.cncf.io/networks: the `interfaces` to wait for")
	interfaces := text("interfaces", "MULTUS_VPC_INTERFACES", "", "`names` of interfaces to wait for instead, as in net1,net2")
	floating := text("floating", "MULTUS_VPC_FLOATING", "", "`ranges` of addresses that move with the pod that carries them, as in 10.10.1.90-10.10.1.95,10.10.2.96/29")
	conflict := text("on-conflict", "MULTUS_VPC_ON_CONFLICT", string(o.sync.OnConflict), "what to do when another ENI holds an address: wait-then-reassign, never or reassign")
	timeout := text("timeout", "MULTUS_VPC_TIMEOUT", "2m", "how `long` initContainers waits for interfaces and EC2")
	wait := text("wait", "MULTUS_VPC_WAIT", "0s", "how `long` ready asks until the sidecar says yes; 0s: once")
	grace := text("grace", "MULTUS_VPC_GRACE", "20s", "how `long` sidecar takes after SIGTERM to give addresses back; less than terminationGracePeriodSeconds")
	check := text("check-interval", "MULTUS_VPC_CHECK_INTERVAL", "1m", "how `often` sidecar compares with EC2")
	via := text("via", "MULTUS_VPC_VIA", string(ViaAuto), "the `way` to EC2: agent, by the node agent's socket; ec2, by EC2's API; or auto, by the socket when its folder is mounted")
	fs.StringVar(&o.socket, "sync-socket", orDefault(getenv("MULTUS_VPC_SYNC_SOCKET"), agentapi.DefaultSyncSocket), "`path` of the node agent's socket for pods (MULTUS_VPC_SYNC_SOCKET)")
	node := text("node-address", "MULTUS_VPC_NODE_ADDRESS", "", "the worker's `address` (status.hostIP), to find its ENIs without the instance metadata")
	level := text("log-level", "MULTUS_VPC_LOG_LEVEL", "info", "debug, info, warn or error")
	fs.StringVar(&o.metricsAddress, "metrics-address", orDefault(getenv("MULTUS_VPC_METRICS_ADDRESS"), "127.0.0.1:61691"), "`address` of sidecar's /metrics, /healthz and /readyz (MULTUS_VPC_METRICS_ADDRESS)")
	fs.StringVar(&o.terminationLog, "termination-log", orDefault(getenv("MULTUS_VPC_TERMINATION_LOG"), "/dev/termination-log"), "`file` that the reason of a failure goes to, where Kubernetes shows it (MULTUS_VPC_TERMINATION_LOG)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(stderr, usage, program)
			fs.SetOutput(stderr)
			fs.PrintDefaults()
		}
		return options{}, err
	}
	p := problems{}
	if fs.NArg() > 0 {
		word := fs.Arg(fs.NArg() - 1)
		m, known := words[word]
		if !known || fs.NArg() > 1 {
			p.add("argument", strings.Join(fs.Args(), " "), errors.New("want at most one of initContainers, sidecar and ready"))
		}
		o.mode = m
	}
	var err error
	if o.promise, err = promised(*networks); err != nil {
		p.add("--networks", "", err)
	}
	if *interfaces != "" {
		o.promise = strings.Split(*interfaces, ",")
	}
	if o.sync.Floating, err = ranges(*floating); err != nil {
		p.add("--floating", "", err)
	}
	if o.sync.OnConflict = attachment.OnConflict(*conflict); !known(o.sync.OnConflict) {
		p.add("--on-conflict", *conflict, errors.New("want wait-then-reassign, never or reassign"))
	}
	if o.via = Via(*via); o.via != ViaAuto && o.via != ViaAgent && o.via != ViaEC2 {
		p.add("--via", *via, errors.New("want auto, agent or ec2"))
	}
	o.timeout = p.duration("--timeout", *timeout)
	if *wait != "0s" {
		o.wait = p.duration("--wait", *wait)
	}
	o.grace = p.duration("--grace", *grace)
	o.sync.CheckInterval = p.duration("--check-interval", *check)
	if *node != "" {
		if o.nodeAddress, err = netip.ParseAddr(*node); err != nil {
			p.add("--node-address", *node, errors.New("want an address, as status.hostIP gives it"))
		}
	}
	if err := o.logLevel.UnmarshalText([]byte(*level)); err != nil {
		p.add("--log-level", *level, errors.New("want debug, info, warn or error"))
	}
	return o, errors.Join(p.errs...)
}

// problems collects what is wrong.
type problems struct{ errs []error }

func (p *problems) add(flag, value string, err error) {
	if value != "" {
		flag = fmt.Sprintf("%s %q", flag, value)
	}
	p.errs = append(p.errs, fmt.Errorf("%s: %w", flag, err))
}

func (p *problems) duration(flag, value string) time.Duration {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		p.add(flag, value, errors.New("want a duration above zero, as in 90s or 2m"))
	}
	return d
}

func ranges(list string) (rs []attachment.Range, err error) {
	for item := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		r, err := attachment.ParseRange(item)
		if err != nil {
			return nil, err
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func known(c attachment.OnConflict) bool {
	return c == attachment.WaitThenReassign || c == attachment.Never || c == attachment.Reassign
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
