// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/guard"
	"github.com/multus-vpc/multus-vpc/internal/kube"
	"github.com/multus-vpc/multus-vpc/internal/pool"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// options are the agent's flags. Each has an environment variable as its default, and the file of --config stands
// between the two: flag, then environment, then file, then built-in default.
type options struct {
	socket          string
	syncSocket      string
	stateDir        string
	cniBinDir       string
	metricsAddress  string
	configFile      string
	logLevel        string
	kube            kube.Config
	nodeName        string
	pool            pool.Config
	guard           guard.Config
	interfaces      workereni.Config // none means that the agent makes no ENIs
	awaitInterfaces int
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
	o := options{pool: pool.DefaultConfig(), guard: guard.DefaultConfig()}
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // an error is told once, by run
	text := func(p *string, name, env, def, use string) {
		if v := getenv(env); v != "" {
			def = v
		}
		fs.StringVar(p, name, def, fmt.Sprintf("%s (%s)", use, env))
	}
	text(&o.socket, "socket", "MULTUS_VPC_AGENT_SOCKET", agentapi.DefaultSocket, "unix `path` to listen on for plugins")
	text(&o.syncSocket, "sync-socket", "MULTUS_VPC_SYNC_SOCKET", "", "unix `path` to listen on for init containers and sidecars, in a folder of its own that pods mount; default sync/sync.sock beside --socket's folder")
	text(&o.stateDir, "state-dir", "MULTUS_VPC_STATE_DIR", "/var/lib/multus-vpc", "`folder` of the ledger; must survive a reboot")
	text(&o.cniBinDir, "cni-bin-dir", "MULTUS_VPC_CNI_BIN_DIR", "", "`folder` to install the plugins in; empty installs nothing")
	text(&o.metricsAddress, "metrics-address", "MULTUS_VPC_METRICS_ADDRESS", ":61690", "`address` of /metrics, /healthz and /readyz; empty serves none")
	text(&o.configFile, "config", "MULTUS_VPC_CONFIG", "", "YAML `file` with pool targets, and the ENIs that the worker is to have")
	text(&o.kube.Kubeconfig, "kubeconfig", "KUBECONFIG", "", "`file` to reach the Kubernetes API with; empty means as this pod's service account, or not at all")
	text(&o.nodeName, "node-name", "NODE_NAME", "", "this node's `name` in the Kubernetes API (spec.nodeName), to tell by Multus's word which pod has an address")
	text(&o.logLevel, "log-level", "MULTUS_VPC_LOG_LEVEL", "info", "debug, info, warn or error")
	o.kube.ServiceHost, o.kube.ServicePort = getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, usage)
			fs.SetOutput(stderr)
			fs.PrintDefaults()
		}
		return options{}, err
	}
	o.syncSocket = cmp.Or(o.syncSocket, filepath.Join(filepath.Dir(filepath.Dir(o.socket)), "sync", filepath.Base(agentapi.DefaultSyncSocket)))
	var errs []error
	if fs.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q: the agent takes flags only", fs.Arg(0)))
	}
	errs = append(errs, o.readFile(), o.readEnv(getenv), o.validate())
	return o, errors.Join(errs...)
}

// readEnv overlays the variables that the Amazon VPC CNI has for the same targets.
func (o *options) readEnv(getenv func(string) string) error {
	var errs []error
	read := func(name string, set func(*int) error) {
		text := getenv(name)
		if text == "" {
			return
		}
		given, err := strconv.Atoi(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not a whole number", name, text))
		} else if err := set(&given); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	read("WARM_IP_TARGET", func(i *int) error { return setCount(&o.pool.WarmIPTarget, i) })
	read("MINIMUM_IP_TARGET", func(i *int) error { return setCount(&o.pool.MinimumIPTarget, i) })
	read("IP_COOLDOWN_PERIOD", func(i *int) error { return setSeconds(&o.pool.Cooldown, i, 1) })
	return errors.Join(errs...)
}

// validate reports what is wrong with the flags.
func (o *options) validate() error {
	var errs []error
	if o.socket == "" {
		errs = append(errs, errors.New("--socket: must name a path"))
	}
	if filepath.Dir(filepath.Clean(o.syncSocket)) == filepath.Dir(filepath.Clean(o.socket)) {
		errs = append(errs, errors.New("--sync-socket: must be in another folder than --socket, for pods mount its folder"))
	}
	if o.stateDir == "" {
		errs = append(errs, errors.New("--state-dir: must name a folder"))
	}
	if _, known := logLevels[o.logLevel]; !known {
		errs = append(errs, fmt.Errorf("--log-level: %q is not debug, info, warn or error", o.logLevel))
	}
	return errors.Join(errs...)
}
