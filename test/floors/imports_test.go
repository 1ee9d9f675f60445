// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package floors

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// floor is the kind of a package. Imports go down only: doors → flows and hands → words. The lab is the ground beside
// them, for vpclab and tests.
type floor string

const (
	words floor = "words" // pure values and rules
	hands floor = "hands" // each touches exactly one outside world
	flows floor = "flows" // use cases over words; they declare what they need of hands
	doors floor = "doors" // programs: configuration, wiring, serving; no door imports another
	frame floor = "frame" // wiring that several doors share
	lab   floor = "lab"   // the laboratory
	tests floor = "tests" // programs and packages that only tests and their runner use; nothing else imports them
)

// below names the floors that a floor may import. Hands and flows meet only in doors.
var below = map[floor][]floor{
	words: {words},
	hands: {words},
	flows: {words},
	doors: {words, hands, flows, frame},
	frame: {words, hands, flows},
	lab:   {words, lab},
	tests: {words, hands, flows, lab},
}

// impure lists what words and flows never import of the standard library, and why.
var impure = map[string]string{
	"os":        "files and the environment are a hand's or a door's",
	"os/exec":   "programs are a hand's",
	"os/signal": "signals are a door's",
	"syscall":   "the kernel is a hand's",
	"net/http":  "protocols are a hand's",
	"flag":      "flags are a door's",
}

const (
	apimachinery = "k8s.io/apimachinery"
	clientGo     = "k8s.io/client-go"
	k8sAPI       = "k8s.io/api"
	awsSDK       = "github.com/aws/aws-sdk-go-v2"
	smithy       = "github.com/aws/smithy-go"
	cni          = "github.com/containernetworking/cni"
	cniPlugins   = "github.com/containernetworking/plugins"
	cobra        = "github.com/spf13/cobra"
	goCmp        = "github.com/google/go-cmp"
	testscript   = "github.com/rogpeppe/go-internal/testscript"
	errgroup     = "golang.org/x/sync/errgroup"
	singleflight = "golang.org/x/sync/singleflight"
	lambdaGo     = "github.com/aws/aws-lambda-go"
	netlink      = "github.com/vishvananda/netlink"
	netnsLib     = "github.com/vishvananda/netns"
	nftables     = "github.com/google/nftables"
	prometheus   = "github.com/prometheus/client_golang"
	rate         = "golang.org/x/time/rate"
	sys          = "golang.org/x/sys/unix"
	yaml         = "sigs.k8s.io/yaml"
	yamlNodes    = "go.yaml.in/yaml/v3"
)

// row says what one package is. libraries are the modules, or parts of them, that it may import itself; one that it no
// longer imports is an error too. also are floors beyond those below it.
type row struct {
	path      string
	floor     floor
	libraries []string
	also      []floor
}

// table has one row per package of the module.
var table = []row{
	{path: "internal/attachment", floor: words},
	{path: "internal/candidate", floor: words},
	{path: "internal/cluster", floor: words},
	{path: "internal/eni", floor: words},
	{path: "internal/lifecycle", floor: words},
	{path: "internal/netconf", floor: words, libraries: []string{cni}},
	{path: "internal/ownership", floor: words},
	{path: "internal/plainjson", floor: words},
	{path: "internal/selection", floor: words},

	{path: "internal/agentapi", floor: hands, libraries: []string{sys}},
	{path: "internal/asghooks", floor: hands, libraries: []string{awsSDK, smithy}, also: []floor{hands}}, // for internal/sdkhttp
	{path: "internal/ec2eni", floor: hands, libraries: []string{awsSDK, smithy}, also: []floor{hands}},   // for internal/sdkhttp
	{path: "internal/ekstoken", floor: hands, libraries: []string{awsSDK, smithy}},
	{path: "internal/imds", floor: hands, libraries: []string{awsSDK, smithy, errgroup}},
	{path: "internal/kube", floor: hands, libraries: []string{apimachinery, clientGo}},
	{path: "internal/kubedrain", floor: hands, libraries: []string{apimachinery, clientGo}},
	{path: "internal/kubeinject", floor: hands, libraries: []string{apimachinery, clientGo, singleflight}},
	{path: "internal/ledger", floor: hands},
	{path: "internal/link", floor: hands, libraries: []string{cniPlugins, netlink, netnsLib, sys}},
	{path: "internal/neighbour", floor: hands, libraries: []string{netlink, sys}},
	{path: "internal/netns", floor: hands, libraries: []string{cniPlugins, netlink, sys}},
	{path: "internal/podlink", floor: hands, libraries: []string{cniPlugins, netlink, netnsLib, sys}},
	{path: "internal/sdkhttp", floor: hands},
	{path: "internal/tombstone", floor: hands, libraries: []string{sys}},
	{path: "internal/webhook", floor: hands, libraries: []string{apimachinery, k8sAPI}},

	{path: "internal/certs", floor: flows},
	{path: "internal/drain", floor: flows},
	{path: "internal/guard", floor: flows},
	{path: "internal/inject", floor: flows, libraries: []string{apimachinery, k8sAPI}},
	{path: "internal/pool", floor: flows},
	{path: "internal/podsync", floor: flows},
	{path: "internal/migrate", floor: flows},
	{path: "internal/sweep", floor: flows},
	{path: "internal/workereni", floor: flows},
	{path: "internal/workerhook", floor: flows, also: []floor{flows}}, // for internal/workereni, which it calls for hooks

	{path: "internal/podprogram", floor: frame, libraries: []string{awsSDK, prometheus}},
	{path: "plugins/internal/ipam", floor: frame, libraries: []string{cni}, also: []floor{frame}}, // for plugins/internal/process
	{path: "plugins/internal/process", floor: frame, libraries: []string{cni}},
	{path: "plugins/vpcipam", floor: doors, libraries: []string{cni, sys}},
	{path: "plugins/vpcipvlan", floor: doors, libraries: []string{cni, sys}},
	{path: "agent", floor: doors, libraries: []string{awsSDK, prometheus, rate, yaml}},
	{path: "initcontainer", floor: doors},
	{path: "injector", floor: doors, libraries: []string{apimachinery, k8sAPI, prometheus}},
	{path: "lambda", floor: doors, libraries: []string{awsSDK, lambdaGo}},
	{path: "sidecar", floor: doors},
	{path: "vpcctl", floor: doors, libraries: []string{awsSDK, cobra, sys, yaml}},
	{path: "vpclab", floor: doors, libraries: []string{cobra, sys}, also: []floor{lab}},

	{path: "internal/lab", floor: lab, libraries: []string{errgroup}},
	{path: "internal/lab/asgapi", floor: lab},
	{path: "internal/lab/autoscaling", floor: lab},
	{path: "internal/lab/cfnapi", floor: lab},
	{path: "internal/lab/cloudformation", floor: lab, libraries: []string{yamlNodes}},
	{path: "internal/lab/ec2api", floor: lab},
	{path: "internal/lab/events", floor: lab},
	{path: "internal/lab/fabric", floor: lab, libraries: []string{cniPlugins, netlink, netnsLib, nftables, sys}},
	{path: "internal/lab/front", floor: lab, libraries: []string{rate}},
	{path: "internal/lab/iam", floor: lab},
	{path: "internal/lab/kubernetes", floor: lab, libraries: []string{sys, yaml}},
	{path: "internal/lab/lambda", floor: lab},
	{path: "internal/lab/metadata", floor: lab},
	{path: "internal/lab/netns", floor: lab, libraries: []string{cniPlugins, netnsLib, sys}},
	{path: "internal/lab/pod", floor: lab, libraries: []string{cniPlugins, netlink, netnsLib, sys}},
	{path: "internal/lab/query", floor: lab},
	{path: "internal/lab/scenario", floor: lab},
	{path: "internal/lab/story", floor: lab, libraries: []string{cni}, also: []floor{hands}},
	{path: "internal/lab/strictyaml", floor: lab, libraries: []string{yaml}},
	{path: "internal/lab/teller", floor: lab},
	{path: "internal/lab/vpc", floor: lab},
	{path: "internal/lab/workers", floor: lab},

	{path: "lambda/pack", floor: tests}, // packs the zips
	{path: "plugins/internal/plugintest", floor: tests, libraries: []string{goCmp, netlink, testscript}},
	{path: "test/awscli", floor: tests},
	{path: "test/bench", floor: tests, libraries: []string{errgroup, sys}, also: []floor{tests}},
	{path: "test/bench/idle", floor: tests},
	{path: "test/cfn", floor: tests},
	{path: "test/cfn/refresh", floor: tests},
	{path: "test/chaos", floor: tests},
	{path: "test/chart", floor: tests},
	{path: "test/conformance", floor: tests, libraries: []string{cni, cniPlugins, errgroup, netlink, sys}, also: []floor{tests}},
	{path: "test/docs", floor: tests},
	{path: "test/drain", floor: tests},
	{path: "test/errors", floor: tests},
	{path: "test/examples", floor: tests},
	{path: "test/floors", floor: tests},
	{path: "test/inject", floor: tests},
	{path: "test/kill", floor: tests},
	{path: "test/life", floor: tests},
	{path: "test/lambda", floor: tests},
	{path: "test/mutants", floor: tests, libraries: []string{errgroup}},
	{path: "test/pods", floor: tests},
	{path: "test/simulate", floor: tests},
	{path: "test/stack", floor: tests},
	{path: "test/stage", floor: tests, libraries: []string{cniPlugins, netlink, netnsLib, sys}},
	{path: "test/sticky", floor: tests},
	{path: "test/socket", floor: tests},
	{path: "test/sync", floor: tests},
	{path: "test/suite", floor: tests, libraries: []string{errgroup}},
	{path: "test/vm", floor: tests, libraries: []string{netlink, sys}},
	{path: "test/workers", floor: tests},
	{path: "test/worker", floor: tests, libraries: []string{sys}},
}

// forbidden are dependencies that the programs under a path must not have, not even through others.
var forbidden = []struct{ under, dependency, reason string }{
	{"plugins/", awsSDK, "the agent is the only caller of EC2; starting the process is most of an ADD"},
	{"plugins/", smithy, "part of the AWS SDK"},
	{"plugins/", "k8s.io", "no credentials for the API server on the CNI path, and start-up time"},
	{"plugins/", "google.golang.org/grpc", "one JSON request on a unix socket is enough; start-up time"},
	{"plugins/", "net/http", "start-up time: it is the largest part of an idle Go process"},
	{"plugins/", prometheus, "a process that lives for a millisecond has no metrics"},
	{"plugins/", "internal/lab", "the lab is for vpclab and tests"},
	{"agent", "internal/lab", "the lab is for vpclab and tests"},
	{"agent", "k8s.io/api", "every API group's types: 15 MB more in each agent than the metadata client"},
	{"vpcctl", "k8s.io/api", "every API group's types: 15 MB more than the dynamic client"},
	{"lambda", "internal/lab", "the lab is for vpclab and tests"},
	{"lambda", netlink, "a function has no interfaces"},
	{"lambda", k8sAPI, "every API group's types: the REST client's answers are read into what is needed of them"},
	{"injector", awsSDK, "it needs no credentials for EC2"},
	{"injector", "internal/lab", "the lab is for vpclab and tests"},
	{"vpcctl", "internal/lab", "the lab is for vpclab and tests"},
	{"vpclab", awsSDK, "the lab is EC2's side; sharing the client's code would hide its mistakes"},
}

func TestImportsGoDown(t *testing.T) {
	t.Parallel()
	packages := load(t)
	rows := map[string]row{}
	for _, r := range table {
		if _, twice := rows[modulePath+"/"+r.path]; twice {
			t.Errorf("%s: two rows", r.path)
		}
		rows[modulePath+"/"+r.path] = r
		if packages[modulePath+"/"+r.path] == nil {
			t.Errorf("%s: in the table, but there is no such package: remove its row", r.path)
		}
	}
	for _, p := range ours(packages) {
		r, ok := rows[p.ImportPath]
		if !ok {
			t.Errorf("%s: not in the table of test/floors/imports_test.go: which floor is it on?", p.short())
			continue
		}
		for _, problem := range check(p, r, rows) {
			t.Errorf("%s (%s): %s", r.path, r.floor, problem)
		}
	}
}

// check judges what a package itself imports.
func check(p *pkg, r row, rows map[string]row) (problems []string) {
	unused := slices.Clone(r.libraries)
	for _, path := range p.Imports {
		if reason := impure[path]; reason != "" && (r.floor == words || r.floor == flows) {
			problems = append(problems, fmt.Sprintf("imports %s: %s", path, reason))
		}
		if imported, ok := rows[path]; ok {
			if !slices.Contains(below[r.floor], imported.floor) && !slices.Contains(r.also, imported.floor) {
				problems = append(problems, fmt.Sprintf("imports %s (%s)", imported.path, imported.floor))
			}
			continue
		}
		if !strings.Contains(path, ".") || within(path, modulePath) { // standard library; ours without a row is reported elsewhere
			continue
		}
		allowed := slices.ContainsFunc(r.libraries, func(library string) bool { return within(path, library) })
		if !allowed {
			problems = append(problems, fmt.Sprintf("imports %s, which its row does not allow", path))
		}
		unused = slices.DeleteFunc(unused, func(library string) bool { return within(path, library) })
	}
	for _, library := range unused {
		problems = append(problems, fmt.Sprintf("its row allows %s, which it does not import", library))
	}
	return problems
}

func TestProgramsLinkNothingForbidden(t *testing.T) {
	t.Parallel()
	packages := load(t)
	for _, rule := range forbidden {
		dependency := rule.dependency
		if strings.HasPrefix(dependency, "internal/") {
			dependency = modulePath + "/" + dependency
		}
		for _, p := range ours(packages) {
			if p.Name != "main" || !strings.HasPrefix(p.short()+"/", strings.TrimSuffix(rule.under, "/")+"/") {
				continue
			}
			if chain := findDependency(packages, p.ImportPath, dependency); chain != nil {
				t.Errorf("%s links %s: %s\n\t%s", p.short(), rule.dependency, rule.reason, strings.Join(chain, "\n\t→ "))
			}
		}
	}
}

// findDependency returns the shortest chain of imports from a package to one within the given path, or nil.
func findDependency(packages map[string]*pkg, from, to string) []string {
	cameFrom := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at != from && within(at, to) {
			var chain []string
			for ; at != ""; at = cameFrom[at] {
				chain = append(chain, at)
			}
			slices.Reverse(chain)
			return chain
		}
		if packages[at] == nil {
			continue
		}
		for _, next := range packages[at].Imports {
			if _, seen := cameFrom[next]; !seen {
				cameFrom[next] = at
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// TestRulesBite feeds the rules what they must catch: a rule that cannot fail protects nothing.
func TestRulesBite(t *testing.T) {
	t.Parallel()
	rows := map[string]row{
		"w":  {path: "w", floor: words},
		"h1": {path: "h1", floor: hands, libraries: []string{netlink}},
		"h2": {path: "h2", floor: hands},
		"l":  {path: "l", floor: lab},
	}
	for _, tc := range []struct {
		path    string
		imports []string
		want    string
	}{
		{"w", []string{"os"}, "imports os"},
		{"w", []string{"h1"}, "imports h1 (hands)"},
		{"h2", []string{"h1"}, "imports h1 (hands)"},
		{"h2", []string{"l"}, "imports l (lab)"},
		{"h2", []string{netlink}, "does not allow"},
		{"h1", []string{"w"}, "does not import"},
		{"h1", []string{netlink + "/nl", "os", "w"}, ""},
	} {
		got := strings.Join(check(&pkg{ImportPath: tc.path, Imports: tc.imports}, rows[tc.path], rows), "; ")
		if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s importing %v: got %q, want %q", tc.path, tc.imports, got, tc.want)
		}
	}
	packages := map[string]*pkg{
		"a": {Imports: []string{"b"}}, "b": {Imports: []string{"net/http/httptrace"}}, "c": {Imports: []string{"net/httpx"}},
	}
	if chain := findDependency(packages, "a", "net/http"); len(chain) != 3 {
		t.Errorf("chain from a to net/http: got %v", chain)
	}
	if chain := findDependency(packages, "c", "net/http"); chain != nil {
		t.Errorf("net/httpx is not net/http: got %v", chain)
	}
}
