// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command conformance holds CNI plugins to the specification: every row of its table is one thing that the text, or an
// operator, asks for, and calls the plugin's program as a container runtime does. `make conformance` runs it for this
// project's plugins and for the reference plugins and writes docs/conformance.md; with a file that describes a subject it
// runs for anybody's plugin. Tests in this package demand that this project's plugins pass, and that what was seen is in
// testdata/outcomes.json, which the document is made of. It needs root; subjects that make ipvlan interfaces need a kernel
// that has them. How a plugin does what it does is none of its business.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

const usage = `usage: conformance run [flags] host | ipvlan | SUBJECT.json
       conformance merge OUTCOMES.json…
       conformance write OUTCOMES.json…

run holds the built-in subjects (those of this host, or those that need ipvlan), or one of yours, to the table and prints
what came of it. merge joins what -o json printed, and write makes docs/conformance.md of it.

`

func main() {
	if isStandIn(os.Args[0]) {
		os.Exit(standIn(os.Args[0], os.Stdin, os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, getenv, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	default:
		fmt.Fprintln(stderr, "conformance:", err)
		return 1
	}
}

func dispatch(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return errors.New("say run, merge or write")
	}
	switch args[0] {
	case "run":
		return runSubjects(ctx, args[1:], getenv, stdout, stderr)
	case "merge":
		return merged(args[1:], stdout)
	case "write":
		return write(args[1:], stdout)
	}
	fmt.Fprint(stderr, usage)
	return fmt.Errorf("unknown command %q", args[0])
}

func runSubjects(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("conformance run", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage); fs.PrintDefaults() }
	output := fs.String("o", "text", "what to print: text or json")
	only := fs.String("rows", "", "run these `rows` alone, by id, with commas between")
	subjects := fs.String("subjects", "", "run these `subjects` alone, by name, with commas between")
	verbose := fs.Bool("v", false, "say on standard error what came of each row, and how long it took")
	if err := fs.Parse(args); err != nil {
		return err
	}
	watch := io.Discard
	if *verbose {
		watch = stderr
	}
	if fs.NArg() != 1 {
		return errors.New("say host, ipvlan, or the file of a subject")
	}
	filter := func(r row) bool { return *only == "" || slices.Contains(strings.Split(*only, ","), r.id) }
	var list []judged
	var err error
	switch what := fs.Arg(0); what {
	case "host", "ipvlan":
		list, err = judgeBuiltins(ctx, getenv, filter, func(b builtin) bool {
			return b.ipvlan == (what == "ipvlan") && (*subjects == "" || slices.Contains(strings.Split(*subjects, ","), b.name))
		}, watch)
	default:
		list, err = judgeFile(ctx, what, filter, watch)
	}
	if err != nil {
		return err
	}
	switch *output {
	case "json":
		return encode(stdout, list)
	case "text":
		return summary(stdout, list)
	}
	return fmt.Errorf("-o %q: must be text or json", *output)
}

// judgeBuiltins runs the subjects side by side, each on a ground of its own.
func judgeBuiltins(ctx context.Context, getenv func(string) string, filter func(row) bool, wanted func(builtin) bool, watch io.Writer) ([]judged, error) {
	from, err := folders(getenv)
	if err != nil {
		return nil, err
	}
	var list []judged
	var grounds []func(*judged) error
	for serial, b := range builtins() {
		if !wanted(b) {
			continue
		}
		if b.control && from.stack == "" {
			return nil, fmt.Errorf("%s needs MULTUS_VPC_STACK, the folder of etcd, kube-apiserver and whereabouts", b.name)
		}
		list = append(list, judged{Subject: b.name})
		grounds = append(grounds, func(j *judged) error {
			out, err := b.judge(ctx, serial, from, filter, watch)
			if err != nil {
				fmt.Fprintf(watch, "%s: %v\n", b.name, err)
			}
			j.Rows = out.marks()
			return err
		})
	}
	if len(list) == 0 {
		return nil, errors.New("no such subject")
	}
	var group errgroup.Group
	group.SetLimit(max(2, runtime.NumCPU()-1)) // each runs an agent, and many short processes
	for i := range list {
		group.Go(func() error { return grounds[i](&list[i]) })
	}
	return list, group.Wait()
}

// judgeFile runs a user's subject, on this host.
func judgeFile(ctx context.Context, name string, filter func(row) bool, watch io.Writer) (_ []judged, err error) {
	s, err := load(name)
	if err != nil {
		return nil, err
	}
	g, err := onThisHost(os.Getpid() % 1000)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	out, err := judge(ctx, s, g, filter, watch)
	return []judged{{Subject: s.Name, Rows: out.marks()}}, err
}

// read joins files of outcomes.
func read(names []string) (all []judged, err error) {
	for _, name := range names {
		text, err := os.ReadFile(filepath.Clean(name))
		if err != nil {
			return nil, err
		}
		var list []judged
		if err := json.Unmarshal(text, &list); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, list...)
	}
	if len(all) == 0 {
		return nil, errors.New("no outcomes")
	}
	return all, nil
}

// encode writes outcomes as JSON that shows what changed, line by line.
func encode(w io.Writer, list []judged) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", " ")
	return encoder.Encode(list)
}

func merged(names []string, stdout io.Writer) error {
	all, err := read(names)
	if err != nil {
		return err
	}
	return encode(stdout, all)
}

func write(names []string, stdout io.Writer) error {
	all, err := read(names)
	if err != nil {
		return err
	}
	_, err = io.WriteString(stdout, document(all))
	return err
}
