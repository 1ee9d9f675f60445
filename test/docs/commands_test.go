// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package docs

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
)

var (
	target   = regexp.MustCompile(`(?m)^([a-z][a-z -]*):.*$`)
	makeWord = regexp.MustCompile("(?:^|[`\n])make ([a-z][a-z-]*)")
)

func TestMakeTargetsExist(t *testing.T) {
	t.Parallel()
	targets := map[string]bool{}
	for _, m := range target.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		for name := range strings.FieldsSeq(m[1]) {
			targets[name] = true
		}
	}
	found := 0
	for _, d := range documents(t) {
		for _, m := range makeWord.FindAllStringSubmatch(d.text, -1) {
			found++
			if !targets[m[1]] {
				t.Errorf("%s: there is no target %q", d.path, m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("found only %d mentions of make", found)
	}
}

// programs builds the programs, and returns a function that gives the help of one of them, with arguments.
func programs(t *testing.T) func(...string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "go", "build", "-o", dir+"/", "./agent", "./initcontainer", "./injector", "./sidecar", "./vpcctl", "./vpclab")
	return func(argv ...string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, argv[0]), append(argv[1:], "-h")...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Errorf("%s -h: %v\n%s", strings.Join(argv, " "), err, &out)
		}
		return out.String()
	}
}

var (
	ownFlag  = regexp.MustCompile(`(?m)^  -([a-z-]+)`)
	variable = regexp.MustCompile(`\(([A-Z_]+)\)`)
	row      = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (?:`([^`]+)`|–) ")
	command  = regexp.MustCompile("(?m)(?:^|[` /])(vpc(?:lab|ctl) [a-z]+|agent|sidecar|initcontainer|injector)((?: [^\n`]*)?)")
	flagWord = regexp.MustCompile(`--([a-z-]+)`)
)

func TestFlagsAreTheProgramsOwn(t *testing.T) {
	t.Parallel()
	help := programs(t)
	known := map[string]string{}
	for _, p := range []struct{ program, page, heading string }{
		{"agent", "README.md", "### Flags"},
		{"sidecar", "sidecar/README.md", "## Flags"},
		{"initcontainer", "sidecar/README.md", "## Flags"},
		{"injector", "docs/injector.md", "## Flags"},
	} {
		known[p.program] = help(p.program)
		var flags, variables, inHelp, variablesInHelp []string
		page := document{p.page, read(t, p.page)}
		for _, m := range row.FindAllStringSubmatch(page.section(t, p.heading), -1) {
			flags, variables = append(flags, strings.TrimPrefix(m[1], "--")), append(variables, m[2])
		}
		for _, m := range ownFlag.FindAllStringSubmatch(known[p.program], -1) {
			inHelp = append(inHelp, m[1])
		}
		_, list, _ := strings.Cut(known[p.program], "Flags (environment variable):")
		for _, m := range variable.FindAllStringSubmatch(list, -1) {
			variablesInHelp = append(variablesInHelp, m[1])
		}
		same(t, "flags of "+p.program, flags, inHelp)
		same(t, "variables of "+p.program, variables, variablesInHelp)
	}
	for _, d := range documents(t) {
		for _, m := range command.FindAllStringSubmatch(strings.Join(d.quoted(), "\n"), -1) {
			if known[m[1]] == "" {
				known[m[1]] = help(strings.Fields(m[1])...)
			}
			for _, f := range flagWord.FindAllStringSubmatch(m[2], -1) {
				if !strings.Contains(known[m[1]], "-"+f[1]) {
					t.Errorf("%s: %s has no flag --%s", d.path, m[1], f[1])
				}
			}
		}
	}
	if len(known) < 5 {
		t.Errorf("found only the commands %v", known)
	}
}

var span = regexp.MustCompile("`([^`\n]+)`")

// quoted lists what the document shows as code: blocks for a shell, and spans.
func (d document) quoted() []string {
	texts := d.code("sh")
	for _, m := range span.FindAllStringSubmatch(d.prose(), -1) {
		texts = append(texts, m[1])
	}
	return texts
}

// jsonTag finds the keys of a struct of our configuration.
var jsonTag = regexp.MustCompile("json:\"([A-Za-z]+),omitempty\"")

func TestConfigurationKeysAreTheAgents(t *testing.T) {
	t.Parallel()
	source := read(t, "agent/config.go") + read(t, "agent/file.go")
	var real []string
	for _, m := range jsonTag.FindAllStringSubmatch(source, -1) {
		if m[1] != "sync" { // whose keys are its own
			real = append(real, m[1])
		}
	}
	for _, m := range jsonTag.FindAllStringSubmatch(read(t, "agent/sync.go"), -1) {
		real = append(real, "sync."+m[1])
	}
	readme := document{"README.md", read(t, "README.md")}
	section := readme.section(t, "### Configuration file")
	same(t, "keys of the agent's file", firstColumn(section), real)
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		if m[2] != "" && !strings.Contains(source, `"`+m[2]+`"`) {
			t.Errorf("README.md: the agent reads no variable %s", m[2])
		}
	}
}

func TestActionsAreThoseThatTheAgentCalls(t *testing.T) {
	t.Parallel()
	// That these are what is called, a test of the package holds.
	ec2 := func(actions []string) (out []string) {
		for _, a := range actions {
			out = append(out, "ec2:"+a)
		}
		return out
	}
	readme := document{"README.md", read(t, "README.md")}
	same(t, "IAM actions", firstColumn(readme.section(t, "### Permissions")), ec2(ec2eni.Actions()))
	page := document{"docs/interfaces.md", read(t, "docs/interfaces.md")}
	same(t, "IAM actions for interfaces", firstColumn(page.section(t, "## Permissions")), append(ec2(ec2eni.WorkerActions()), "ec2:CreateTags")) // it is part of a creation
}

func TestKeysOfInterfacesAreTheirs(t *testing.T) {
	t.Parallel()
	var real []string
	for _, m := range regexp.MustCompile("json:\"([A-Za-z]+)\"").FindAllStringSubmatch(read(t, "internal/workereni/parse.go"), -1) {
		real = append(real, m[1])
	}
	page := document{"docs/interfaces.md", read(t, "docs/interfaces.md")}
	same(t, "keys of an interface", firstColumn(page.section(t, "## Keys")), real)
}
