// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

func TestOptionsGoFlagEnvironmentFileDefault(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "agent.yaml")
	text := "warmIPTarget: 1\nminimumIPTarget: 2\nipCooldownPeriod: 60\nreconcileInterval: 5\nmassReapDelay: 0\nactiveSubnets: [subnet-1]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	builtIn := options{
		socket: "/run/multus-vpc/agent/agent.sock", stateDir: "/var/lib/multus-vpc", metricsAddress: ":61690", logLevel: "info",
		pool: pool.DefaultConfig(),
	}
	fromFile := func(o *options) {
		o.configFile = file
		o.pool.WarmIPTarget, o.pool.MinimumIPTarget = 1, 2
		o.pool.Cooldown, o.pool.ReconcileInterval, o.pool.MassReapDelay = time.Minute, 5*time.Second, 0
		o.pool.ActiveSubnets = []eni.SubnetID{"subnet-1"}
	}
	tests := map[string]struct {
		args []string
		env  map[string]string
		want func(*options)
	}{
		"nothing said": {want: func(*options) {}},
		"file":         {args: []string{"--config", file}, want: fromFile},
		"file named by the environment": {
			env: map[string]string{"MULTUS_VPC_CONFIG": file}, want: fromFile,
		},
		"environment before file": {
			args: []string{"--config", file},
			env:  map[string]string{"WARM_IP_TARGET": "7", "MINIMUM_IP_TARGET": "8", "IP_COOLDOWN_PERIOD": "9"},
			want: func(o *options) {
				fromFile(o)
				o.pool.WarmIPTarget, o.pool.MinimumIPTarget, o.pool.Cooldown = 7, 8, 9*time.Second
			},
		},
		"environment before default": {
			env: map[string]string{
				"MULTUS_VPC_AGENT_SOCKET": "/env.sock", "MULTUS_VPC_STATE_DIR": "/env", "MULTUS_VPC_CNI_BIN_DIR": "/env/bin",
				"MULTUS_VPC_METRICS_ADDRESS": "127.0.0.1:1", "MULTUS_VPC_LOG_LEVEL": "warn",
			},
			want: func(o *options) {
				o.socket, o.stateDir, o.cniBinDir, o.metricsAddress, o.logLevel = "/env.sock", "/env", "/env/bin", "127.0.0.1:1", "warn"
			},
		},
		"flag before environment": {
			args: []string{"--socket", "/flag.sock", "-state-dir=/flag", "--metrics-address="},
			env:  map[string]string{"MULTUS_VPC_AGENT_SOCKET": "/env.sock", "MULTUS_VPC_STATE_DIR": "/env", "MULTUS_VPC_METRICS_ADDRESS": ":1"},
			want: func(o *options) { o.socket, o.stateDir, o.metricsAddress = "/flag.sock", "/flag", "" },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := builtIn
			tt.want(&want)
			got, err := parseOptions(tt.args, func(name string) string { return tt.env[name] }, t.Output())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(options{}), cmpopts.IgnoreTypes((*slog.Logger)(nil)), cmpopts.IgnoreFields(pool.Config{}, "Count", "Refill")); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}
