// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// configured is what reaches the agent: arguments by lines, the three variables of the targets, and the file's text.
type configured struct{ args, warm, minimum, cooldown, file string }

// parse reads all of it, without a file of its own.
func (c configured) parse() (options, error) {
	env := map[string]string{"WARM_IP_TARGET": c.warm, "MINIMUM_IP_TARGET": c.minimum, "IP_COOLDOWN_PERIOD": c.cooldown}
	var args []string
	if c.args != "" {
		args = strings.Split(c.args, "\n")
	}
	o, err := parseOptions(args, func(string) string { return "" }, io.Discard)
	if err != nil {
		return o, err
	}
	o.configFile = "fuzz.yaml"
	return o, errors.Join(o.overlay([]byte(c.file)), o.readEnv(func(name string) string { return env[name] }), o.validate())
}

// configuredSeeds are configurations, and a part of the error that each gives; empty for none.
func configuredSeeds() map[configured]string {
	return map[configured]string{
		{file: "warmIPTarget: 1\nminimumIPTarget: 2\nipCooldownPeriod: 60\nreconcileInterval: 5\nmassReapDelay: 0\nactiveSubnets: [subnet-1]\n"}: "",
		{args: "--log-level\ndebug\n--socket=/s", warm: "0", minimum: "99", cooldown: "86400", file: "{}"}:                                       "",
		{file: `{"warmIPTarget": 3}`}: "",
		{file: "warmIPTarget: null"}:  "",
		{file: "# nothing\n"}:         "",
		{}:                            "",
		{file: "- warmIPTarget"}:      "the file is not a mapping",
		{file: "5"}:                   "the file is not a mapping",
		{file: "warmIPTarget: 1\nwarmIPTarget: 2"}:        `key "warmIPTarget" already set`,
		{file: "warmIPTargt: 1"}:                          "warmIPTargt: unknown key",
		{file: "warmIPTarget: -1"}:                        "-1 is not 0 or more",
		{file: "warmIPTarget: 1.5"}:                       "1.5 is not a whole number",
		{file: "warmIPTarget: 99999999999999999999"}:      "is not a whole number",
		{file: "ipCooldownPeriod: 0"}:                     "0 is not between 1 and 86400 seconds",
		{file: "activeSubnets: [a]"}:                      `"a" is not a subnet ID`,
		{file: "activeSubnets: subnet-1"}:                 "is not a list of subnet IDs",
		{file: "a: &a [x]\nb: &b [*a,*a]\nc: &c [*b,*b]"}: "a: unknown key",
		{file: "\t"}: "yaml",
		{file: "sync: {ranges: [10.10.1.80/30], floating: [\"2001:db8::/126\"], onConflict: wait-then-reassign}"}: "",
		{file: "sync: {}"}:                       "",
		{file: "sync: null"}:                     "",
		{file: "sync: 5"}:                        "sync: 5 is not a mapping",
		{file: "sync: {range: [10.10.1.80/30]}"}: "sync.range: unknown key (value [\"10.10.1.80/30\"]); there are floating, onConflict, ranges",
		{file: "sync: {ranges: 10.10.1.80}"}:     "sync.ranges: \"10.10.1.80\" is not a list of ranges",
		{file: "sync: {ranges: [10.10.1.80], floating: [a, 10.10.1.81/30]}"}:                                                            "sync.floating[1]: \"10.10.1.81/30\" has host bits set",
		{file: "sync: {onConflict: reassign}"}:                                                                                          "sync.onConflict: \"reassign\" is not wait-then-reassign or never",
		{file: "{owner: c, tags: {a: b}, interfaces: [{subnetTags: {network: n4}}, {subnet: subnet-1, networkCard: every, stock: 3}]}"}: "",
		{file: "awaitInterfaces: -1"}:                                                                                                   "awaitInterfaces: -1 is not 0 or more",
		{file: "interfaces: null"}:                                                                                                      "",
		{file: "interfaces: {subnet: subnet-1}"}:                                                                                        "interfaces: want a list",
		{file: "interfaces: [{subnet: subnet-1}]"}:                                                                                      "owner: is missing",
		{file: "{owner: c, interfaces: [{subnets: a}]}"}:                                                                                "interfaces: [0]: json: unknown field \"subnets\"",
		{file: "{owner: c, interfaces: [{subnet: a}, {subnetTags: {a: b}, deleteOnTermination: false}]}"}:                               "interfaces[1].deleteOnTermination: must be true",
		{file: "{owner: c, interfaces: [{subnet: a}]}"}:                                                                                 "interfaces[0].subnet: \"a\" is no subnet ID",
		{file: "{owner: c, tags: {multus-vpc.io/owner: b}, interfaces: [{subnet: subnet-1}]}"}:                                          "tags[\"multus-vpc.io/owner\"]: is set by multus-vpc itself",
		{file: "owner: c"}:     "owner: only stands with interfaces",
		{file: "tags: {a: b}"}: "tags: only stand with interfaces",
		{file: "tags: [a]"}:    "tags: [\"a\"] is not a mapping of keys to texts",
		{file: "owner: 5"}:     "owner: 5 is not a text",
		{args: "--socket=/run/x/agent.sock\n--sync-socket=/run/x/sync.sock"}: "--sync-socket: must be in another folder",
		{warm: "five"}:             `WARM_IP_TARGET: "five" is not a whole number`,
		{cooldown: "86401"}:        "IP_COOLDOWN_PERIOD: 86401 is not between",
		{args: "--log-level=loud"}: "--log-level",
		{args: "--state-dir="}:     "--state-dir: must name a folder",
		{args: "start"}:            "unexpected argument",
		{args: "--sokcet\n/s"}:     "flag provided but not defined",
	}
}

func TestSeedsOfConfigurations(t *testing.T) {
	t.Parallel()
	for seed, want := range configuredSeeds() {
		_, err := seed.parse()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", seed, err, want)
		}
	}
}

// FuzzConfiguration: an accepted configuration is within its bounds, and means the same when it is written as a file; a
// refused one says why, on a line for each reason.
func FuzzConfiguration(f *testing.F) {
	for s := range configuredSeeds() {
		f.Add(s.args, s.warm, s.minimum, s.cooldown, s.file)
	}
	f.Fuzz(func(t *testing.T, args, warm, minimum, cooldown, file string) {
		if strings.Contains(args, "config") {
			t.Skip() // the fuzzer must not read this host's files
		}
		o, err := configured{args, warm, minimum, cooldown, file}.parse()
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("refused without a reason")
			}
			return
		}
		bounded(t, o)
		seconds := func(d time.Duration) *int { n := int(d / time.Second); return &n }
		text, err := yaml.Marshal(fileConfig{
			WarmIPTarget: &o.pool.WarmIPTarget, MinimumIPTarget: &o.pool.MinimumIPTarget, IPCooldownPeriod: seconds(o.pool.Cooldown),
			ReconcileInterval: seconds(o.pool.ReconcileInterval), MassReapDelay: seconds(o.pool.MassReapDelay), ActiveSubnets: o.pool.ActiveSubnets,
			Sync: &syncConfig{Ranges: texts(o.guard.Ranges), Floating: texts(o.guard.Floating), OnConflict: (*string)(&o.guard.OnConflict)},
		})
		if err != nil {
			t.Fatal(err)
		}
		again := options{pool: pool.DefaultConfig()}
		if err := again.overlay(text); err != nil {
			t.Fatalf("refused when it is written:\n%s%v", text, err)
		}
		if diff := cmp.Diff(targets(o), targets(again)); diff != "" {
			t.Errorf("targets (-read +written and read):\n%s", diff)
		}
		if a, b := o.guard, again.guard; !slices.Equal(a.Ranges, b.Ranges) || !slices.Equal(a.Floating, b.Floating) || a.OnConflict != b.OnConflict {
			t.Errorf("sync is read as %+v, and as %+v when it is written", a, b)
		}
	})
}

func texts(rs []attachment.Range) (ts []string) {
	for _, r := range rs {
		ts = append(ts, r.String())
	}
	return ts
}

// targets are what a file can say.
func targets(o options) pool.Config {
	c := o.pool
	return pool.Config{
		WarmIPTarget: c.WarmIPTarget, MinimumIPTarget: c.MinimumIPTarget, Cooldown: c.Cooldown,
		ReconcileInterval: c.ReconcileInterval, MassReapDelay: c.MassReapDelay, ActiveSubnets: slices.Concat(c.ActiveSubnets),
	}
}

func bounded(t *testing.T, o options) {
	t.Helper()
	c := o.pool
	if c.WarmIPTarget < 0 || c.MinimumIPTarget < 0 || c.Cooldown < time.Second || c.ReconcileInterval < time.Second || c.MassReapDelay < 0 ||
		max(c.Cooldown, c.ReconcileInterval, c.MassReapDelay) > maxPeriod*time.Second {
		t.Errorf("accepted %+v", c)
	}
	for _, s := range c.ActiveSubnets {
		if !strings.HasPrefix(string(s), "subnet-") {
			t.Errorf("accepted subnet %q", s)
		}
	}
	if _, known := logLevels[o.logLevel]; !known || o.socket == "" || o.stateDir == "" {
		t.Errorf("accepted %+v", o)
	}
}
