// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// options are the agent's flags. Each has an environment variable as its default, and the file of --config stands
// between the two: flag, then environment, then file, then built-in default.
type options struct {
	socket         string
	stateDir       string
	cniBinDir      string
	metricsAddress string
	configFile     string
	logLevel       string
	pool           pool.Config
}

// fileConfig is the YAML of --config. Its names are the Amazon VPC CNI's where they mean the same.
type fileConfig struct {
	// WarmIPTarget is how many addresses without a pod each active ENI keeps. Default 5.
	WarmIPTarget *int `json:"warmIPTarget,omitempty"`
	// MinimumIPTarget is how many addresses in all each active ENI keeps at least. Default 14.
	MinimumIPTarget *int `json:"minimumIPTarget,omitempty"`
	// IPCooldownPeriod, in seconds, is how long an address that was given back is kept for the same pod. Default 30.
	IPCooldownPeriod *int `json:"ipCooldownPeriod,omitempty"`
	// ReconcileInterval, in seconds, is how often holds are compared with the network namespaces. Default 10.
	ReconcileInterval *int `json:"reconcileInterval,omitempty"`
	// MassReapDelay, in seconds, is how long after more than half of the namespaces vanished at once a second look
	// decides. Default 30.
	MassReapDelay *int `json:"massReapDelay,omitempty"`
	// ActiveSubnets are the IDs of subnets whose ENIs take stock without waiting for a first pod. Default none.
	ActiveSubnets []eni.SubnetID `json:"activeSubnets,omitempty"`
}

const usage = `agent is the multus-vpc node agent: it keeps addresses of subnet CIDR reservations on this worker's ENIs and gives
them to the CNI plugins. It runs in the host's network namespace, one to a worker.

The AWS SDK's own variables choose region, credentials and endpoints (AWS_REGION, AWS_ENDPOINT_URL_EC2,
AWS_EC2_METADATA_SERVICE_ENDPOINT). Pool targets come from --config or from WARM_IP_TARGET, MINIMUM_IP_TARGET and
IP_COOLDOWN_PERIOD (seconds).

Flags (environment variable):
`

// parseOptions reads flags, environment and file, and reports everything that is wrong with them at once.
func parseOptions(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	o := options{pool: pool.DefaultConfig()}
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	fs.SetOutput(stderr)
	text := func(p *string, name, env, def, use string) {
		if v := getenv(env); v != "" {
			def = v
		}
		fs.StringVar(p, name, def, fmt.Sprintf("%s (%s)", use, env))
	}
	text(&o.socket, "socket", "MULTUS_VPC_AGENT_SOCKET", agentapi.DefaultSocket, "unix `path` to listen on for plugins")
	text(&o.stateDir, "state-dir", "MULTUS_VPC_STATE_DIR", "/var/lib/multus-vpc", "`folder` of the ledger; must survive a reboot")
	text(&o.cniBinDir, "cni-bin-dir", "MULTUS_VPC_CNI_BIN_DIR", "", "`folder` to install the plugins in; empty installs nothing")
	text(&o.metricsAddress, "metrics-address", "MULTUS_VPC_METRICS_ADDRESS", ":61690", "`address` of /metrics, /healthz and /readyz; empty serves none")
	text(&o.configFile, "config", "MULTUS_VPC_CONFIG", "", "YAML `file` with pool targets")
	text(&o.logLevel, "log-level", "MULTUS_VPC_LOG_LEVEL", "info", "debug, info, warn or error")
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	var errs []error
	if fs.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q: the agent takes flags only", fs.Arg(0)))
	}
	errs = append(errs, o.readFile(), o.readEnv(getenv), o.validate())
	return o, errors.Join(errs...)
}

// readFile overlays the YAML file on the defaults.
func (o *options) readFile() error {
	if o.configFile == "" {
		return nil
	}
	text, err := os.ReadFile(o.configFile)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	var f fileConfig
	if err := yaml.UnmarshalStrict(text, &f); err != nil {
		return fmt.Errorf("--config %s: %w", o.configFile, err)
	}
	number(&o.pool.WarmIPTarget, f.WarmIPTarget)
	number(&o.pool.MinimumIPTarget, f.MinimumIPTarget)
	seconds(&o.pool.Cooldown, f.IPCooldownPeriod)
	seconds(&o.pool.ReconcileInterval, f.ReconcileInterval)
	seconds(&o.pool.MassReapDelay, f.MassReapDelay)
	o.pool.ActiveSubnets = f.ActiveSubnets
	return nil
}

func number(to *int, from *int) {
	if from != nil {
		*to = *from
	}
}

func seconds(to *time.Duration, from *int) {
	if from != nil {
		*to = time.Duration(*from) * time.Second
	}
}

// readEnv overlays the variables that the Amazon VPC CNI has for the same targets.
func (o *options) readEnv(getenv func(string) string) error {
	var errs []error
	read := func(name string, set func(*int)) {
		v := getenv(name)
		if v == "" {
			return
		}
		i, err := strconv.Atoi(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s=%q: must be a whole number", name, v))
			return
		}
		set(&i)
	}
	read("WARM_IP_TARGET", func(i *int) { number(&o.pool.WarmIPTarget, i) })
	read("MINIMUM_IP_TARGET", func(i *int) { number(&o.pool.MinimumIPTarget, i) })
	read("IP_COOLDOWN_PERIOD", func(i *int) { seconds(&o.pool.Cooldown, i) })
	return errors.Join(errs...)
}

func (o *options) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(o.socket != "", "--socket: must name a path")
	check(o.stateDir != "", "--state-dir: must name a folder")
	check(o.pool.WarmIPTarget >= 0, "warmIPTarget %d: must be 0 or more", o.pool.WarmIPTarget)
	check(o.pool.MinimumIPTarget >= 0, "minimumIPTarget %d: must be 0 or more", o.pool.MinimumIPTarget)
	check(o.pool.Cooldown > 0, "ipCooldownPeriod %v: must be more than 0 seconds", o.pool.Cooldown)
	check(o.pool.ReconcileInterval > 0, "reconcileInterval %v: must be more than 0 seconds", o.pool.ReconcileInterval)
	check(o.pool.MassReapDelay >= 0, "massReapDelay %v: must be 0 seconds or more", o.pool.MassReapDelay)
	for i, s := range o.pool.ActiveSubnets {
		check(strings.HasPrefix(string(s), "subnet-"), "activeSubnets[%d] %q: must be a subnet ID", i, s)
	}
	_, known := logLevels[o.logLevel]
	check(known, "--log-level %q: must be debug, info, warn or error", o.logLevel)
	return errors.Join(errs...)
}
