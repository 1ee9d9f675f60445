// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/guard"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

func TestOptionsGoFlagEnvironmentFileDefault(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "agent.yaml")
	text := "warmIPTarget: 1\nminimumIPTarget: 2\nipCooldownPeriod: 60\nreconcileInterval: 5\nmassReapDelay: 0\nactiveSubnets: [subnet-1]\n" +
		"sync: {ranges: [10.10.1.80-10.10.1.82], floating: [10.10.1.96/30, 10.10.1.90], onConflict: never}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	builtIn := options{
		socket: "/run/multus-vpc/agent/agent.sock", syncSocket: "/run/multus-vpc/sync/sync.sock", stateDir: "/var/lib/multus-vpc", metricsAddress: ":61690", logLevel: "info",
		pool: pool.DefaultConfig(), guard: guard.DefaultConfig(),
	}
	ranges := func(texts ...string) (rs []attachment.Range) {
		for _, text := range texts {
			r, err := attachment.ParseRange(text)
			if err != nil {
				t.Fatal(err)
			}
			rs = append(rs, r)
		}
		return rs
	}
	fromFile := func(o *options) {
		o.configFile = file
		o.pool.WarmIPTarget, o.pool.MinimumIPTarget = 1, 2
		o.pool.Cooldown, o.pool.ReconcileInterval, o.pool.MassReapDelay = time.Minute, 5*time.Second, 0
		o.pool.ActiveSubnets = []eni.SubnetID{"subnet-1"}
		o.guard.Ranges, o.guard.Floating = ranges("10.10.1.80-10.10.1.82"), ranges("10.10.1.96/30", "10.10.1.90")
		o.guard.OnConflict = attachment.Never
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
				"MULTUS_VPC_METRICS_ADDRESS": "127.0.0.1:1", "MULTUS_VPC_LOG_LEVEL": "warn", "MULTUS_VPC_SYNC_SOCKET": "/env/sync.sock", "NODE_NAME": "node-1",
			},
			want: func(o *options) {
				o.socket, o.stateDir, o.cniBinDir, o.metricsAddress, o.logLevel = "/env.sock", "/env", "/env/bin", "127.0.0.1:1", "warn"
				o.syncSocket, o.nodeName = "/env/sync.sock", "node-1"
			},
		},
		"flag before environment": {
			args: []string{"--socket", "/run/x/flag.sock", "-state-dir=/flag", "--metrics-address="},
			env:  map[string]string{"MULTUS_VPC_AGENT_SOCKET": "/env.sock", "MULTUS_VPC_STATE_DIR": "/env", "MULTUS_VPC_METRICS_ADDRESS": ":1"},
			want: func(o *options) {
				o.socket, o.syncSocket, o.stateDir, o.metricsAddress = "/run/x/flag.sock", "/run/sync/sync.sock", "/flag", ""
			},
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
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(options{}), cmpopts.IgnoreTypes((*slog.Logger)(nil)), cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreFields(pool.Config{}, "Count", "Refill", "Tell")); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}
