// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package workers tells how workers get their ENIs: the CloudFormation templates are deployed into the lab, their function
// runs the real bootstrap out of its package, and an Auto Scaling group grows and shrinks. Events come twice, programs are
// killed, and in the end nothing is left. Every line is an assertion with what was measured. `vpclab workers` and a test
// tell it; nothing else belongs here. It knows nothing of the function's code: what it wants of an ENI is written down
// here once more.
package workers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
)

// ErrFailed says that an assertion of the story did not hold. The story itself says which.
var ErrFailed = errors.New("the story did not hold")

// Config is what [Tell] needs.
type Config struct {
	// Out gets the story.
	Out io.Writer
	// Terminal makes lines change while something is in progress, and colours the marks.
	Terminal bool
	// Templates is the folder of vpc.yaml and multus-node-group.yaml.
	Templates string
	// Package is the function's zip, for Architecture, which is x86_64 or arm64: this machine's.
	Package, Architecture string
	// Patience bounds each wait; default one minute, which is some ten times of what the longest takes.
	Patience time.Duration
}

// Tell tells the whole story. When an assertion fails it tells on as far as that makes sense, and returns an error that
// matches [ErrFailed]. Nothing runs any more when it returns.
func Tell(ctx context.Context, cfg Config) (err error) {
	cfg.Patience = cmp.Or(cfg.Patience, time.Minute)
	s := &story{cfg: cfg, teller: teller.New(cfg.Out, cfg.Terminal), seen: map[string]time.Duration{}}
	sc, err := scenario.Parse([]byte(theScenario))
	if err != nil {
		return err
	}
	if err = s.read("vpc.yaml", "multus-node-group.yaml"); err != nil {
		return err
	}
	s.title()
	folder, name := filepath.Split(cfg.Package)
	s.key = name
	if s.lab, err = lab.Serve(ctx, sc, lab.Config{Log: cfg.Out, Buckets: map[string]string{bucket: folder}}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.lab.Close()) }()
	s.before = s.count()
	for _, chapter := range []func(context.Context){s.deploy, s.grow, s.killed, s.abandoned, s.shrink, s.swept, s.remove} {
		chapter(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return s.verdict()
}

// theScenario is an account with somebody else's VPC and ENI in it, which the story must leave alone.
const theScenario = `
vpc: {cidr: 10.99.0.0/16}
subnets:
- {name: other, cidr: 10.99.1.0/24, az: us-west-2a}
ec2:
  latency: 40ms
  boot: 2s
  propagation: {route: 500ms, imds: 1s, describe: 1s}
functions: {retryAfter: 2s}
`

// Names in the templates' parameters.
const (
	bucket    = "functions"
	cluster   = "demo"
	groupName = "demo-multus" // ClusterName-NodeGroupName, as the template makes it
	stock     = 4             // InterfaceStock
)

// twice is how EventBridge delivers in most of the story: each event once more, both within half a second.
var twice = events.Mischief{Duplicates: 1, Delay: 500 * time.Millisecond}

// story is the state of a telling.
type story struct {
	cfg       Config
	teller    *teller.Teller
	lab       *lab.Running
	key       string // of the function's package
	templates map[string]*cloudformation.Template

	network  cloudformation.Stack
	function string                   // of the node group; empty until it is deployed
	seen     map[string]time.Duration // from launch to InService, by instance
	over     int                      // invocations that the story has accounted for
	before   census
	most     census // with all workers
}

func (s *story) title() {
	s.teller.Say(`multus-vpc: workers get their ENIs

  An AWS account on this machine: EC2, Auto Scaling, EventBridge, Lambda, CloudFormation. EC2 answers in 40 ms, and shows
  what it changed 1 s later. Each event is delivered twice.`)
}

func (s *story) verdict() error {
	t := s.teller
	if n := t.Failed(); n > 0 {
		if tail := s.logTail(s.function); tail != "" {
			t.Say("\nThe end of what the function logged:\n" + tail)
		}
		t.Say(fmt.Sprintf("\n%d of %d assertions failed.", n, t.Passed()+n))
		return fmt.Errorf("%w: %d of %d assertions failed", ErrFailed, n, t.Passed()+n)
	}
	t.Say(fmt.Sprintf("\n%d assertions, all true.", t.Passed()))
	return nil
}

// logTail are the last lines of a function's log.
func (s *story) logTail(function string) string {
	lines := strings.Split(strings.TrimSpace(s.lab.Functions.Logs(function)), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// read reads templates.
func (s *story) read(names ...string) error {
	s.templates = map[string]*cloudformation.Template{}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(s.cfg.Templates, name))
		if err != nil {
			return err
		}
		if s.templates[name], err = cloudformation.Parse(data); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
