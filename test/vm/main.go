// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command vm runs one program where ipvlan works: in throwaway namespaces of this host when its kernel has ipvlan and
// the caller is root, and otherwise in a small virtual machine with a distribution's kernel. It says on standard error
// which one it took and why. The Makefile uses it for the demo and for every test that needs ipvlan, and it serves as
// `go test -exec`. Both ways the program sees itself, the shipped files and its working directory at the paths they
// have here, runs as root of a machine without interfaces but lo, streams its output, and its exit status becomes that
// of vm. Nothing it makes outlives it. What the program does is none of this package's business.
//
// Build it with CGO_ENABLED=0: the same executable is the first process inside.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// exitBroken is the status when the program's own status is unknown: the machine did not start, panicked, hung or ran
// out of memory. It is what `git bisect run` and `docker run` use for "could not tell".
const exitBroken = 125

const usage = `usage: vm [flags] PROGRAM [ARGUMENT…]
       vm [flags] -where | -fetch

Runs PROGRAM where ipvlan works: directly in namespaces, or in a virtual machine (static programs only).

`

// config is what the command line and the environment ask for.
type config struct {
	where    string        // auto, host or vm
	kernel   string        // Debian package, or folder with boot/vmlinuz-* and lib/modules
	cache    string        // where kernels are kept
	cpus     int           // of the virtual machine
	memoryMB int           // of the virtual machine
	timeout  time.Duration // for the whole run
	ship     []string      // absolute paths the program needs besides itself
	env      []string      // NAME=VALUE for the program
	verbose  bool
	only     string   // "where" or "fetch": answer or prepare, and run nothing
	argv     []string // absolute program, then its arguments
	dir      string   // working directory
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == insideArg && os.Getpid() == 1 {
		os.Exit(inside(os.Args[2]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, environ, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "vm:", err)
		return 2
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.timeout, fmt.Errorf("not finished within %v (-timeout)", cfg.timeout))
	defer cancel()

	status, err := cfg.run(ctx, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "vm:", err)
		return exitBroken
	}
	return status
}

// choose decides where the program runs, and why.
func (c config) choose() (where, reason string) {
	if c.where != "auto" {
		return c.where, "as asked"
	}
	if err := probe(); err != nil {
		return "vm", err.Error()
	}
	return "host", "root on a kernel with ipvlan"
}

// run runs the program where it can, and says where that is.
func (c config) run(ctx context.Context, stdout, stderr io.Writer) (int, error) {
	where, reason := c.choose()
	if c.only == "where" {
		fmt.Fprintf(stderr, "vm: %s\n", reason)
		_, err := fmt.Fprintln(stdout, where)
		return 0, err
	}
	if where == "host" && c.only == "" {
		fmt.Fprintf(stderr, "vm: running in namespaces of this host (%s)\n", reason)
		return runDirect(ctx, c, stdout, stderr)
	}
	k, err := findKernel(ctx, c.kernel, c.cache, stderr)
	if err != nil || c.only == "fetch" {
		return 0, err
	}
	if err := checkStatic(c.argv[0]); err != nil {
		return 0, err
	}
	accel := chooseAccel(ctx, c, k)
	fmt.Fprintf(stderr, "vm: running in a virtual machine, Linux %s, %s (%s)\n", k.version, accel, reason)
	return runMachine(ctx, c, k, accel, stdout, stderr)
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parse(args, environ []string, stderr io.Writer) (config, error) {
	getenv := func(name string) string {
		for _, kv := range environ {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v
			}
		}
		return ""
	}
	var c config
	var ship, env list
	fs := flag.NewFlagSet("vm", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage); fs.PrintDefaults() }
	fs.StringVar(&c.where, "in", or(getenv("MULTUS_VPC_VM"), "auto"), "where: auto, host (namespaces) or vm; default from MULTUS_VPC_VM")
	fs.StringVar(&c.kernel, "kernel", or(getenv("KERNEL"), defaultKernel), "Debian kernel package, or folder with boot/vmlinuz-* and lib/modules; default from KERNEL")
	fs.StringVar(&c.cache, "cache", cacheDir(getenv), "where kernels are kept")
	fs.IntVar(&c.cpus, "cpus", 2, "processors of the virtual machine")
	fs.IntVar(&c.memoryMB, "memory", 2048, "memory of the virtual machine in MiB")
	fs.DurationVar(&c.timeout, "timeout", 15*time.Minute, "time for the whole run")
	fs.Var(&ship, "ship", "file or folder that the program needs, at its own path (repeatable)")
	fs.Var(&env, "env", "NAME or NAME=VALUE for the program (repeatable); MULTUS_VPC_* and GO* are always passed")
	fs.BoolVar(&c.verbose, "v", false, "print timings")
	fs.BoolFunc("where", "print where a program would run, host or vm, and why on standard error; run nothing", c.chooseOnly("where"))
	fs.BoolFunc("fetch", "download what a run in the virtual machine needs; run nothing", c.chooseOnly("fetch"))
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	if fs.NArg() == 0 && c.only == "" {
		fs.Usage()
		return c, errors.New("no program given")
	}
	if c.where != "auto" && c.where != "host" && c.where != "vm" {
		return c, fmt.Errorf("-in %s: want auto, host or vm", c.where)
	}
	c.env = environment(environ, env)
	return c, c.resolve(fs.Args(), ship)
}

func (c *config) chooseOnly(what string) func(string) error {
	return func(string) error { c.only = what; return nil }
}

// resolve makes every path of the run absolute.
func (c *config) resolve(argv, ship []string) (err error) {
	if c.dir, err = os.Getwd(); err != nil {
		return err
	}
	if c.cache, err = filepath.Abs(c.cache); err != nil {
		return err
	}
	if c.only != "" {
		return nil
	}
	program, err := filepath.Abs(argv[0])
	if err != nil {
		return err
	}
	c.argv = append([]string{program}, argv[1:]...)
	c.ship = []string{program}
	if _, err = os.Stat("testdata"); err == nil {
		c.ship = append(c.ship, filepath.Join(c.dir, "testdata"))
	}
	for _, s := range ship {
		var abs string
		if abs, err = filepath.Abs(s); err != nil {
			return err
		}
		if _, err = os.Stat(abs); err != nil {
			return fmt.Errorf("ship %s: %w", s, err)
		}
		c.ship = append(c.ship, abs)
	}
	_, err = os.Stat(program)
	return err
}

// environment is what the program gets: a fixed PATH and HOME, the variables of this project and of Go's runtime, and
// those asked for. The host's other variables name things that do not exist inside.
func environment(environ, asked []string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TMPDIR=/tmp"}
	wanted := func(name string) bool {
		for _, a := range asked {
			if a == name {
				return true
			}
		}
		switch name {
		case "TERM", "NO_COLOR", "GODEBUG", "GOTRACEBACK", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GORACE":
			return true
		}
		return strings.HasPrefix(name, "MULTUS_VPC_")
	}
	for _, kv := range environ {
		if name, _, _ := strings.Cut(kv, "="); wanted(name) {
			env = append(env, kv)
		}
	}
	for _, a := range asked {
		if strings.Contains(a, "=") {
			env = append(env, a)
		}
	}
	return env
}

func cacheDir(getenv func(string) string) string {
	base := getenv("XDG_CACHE_HOME")
	if base == "" {
		base = filepath.Join(getenv("HOME"), ".cache")
	}
	return filepath.Join(base, "multus-vpc")
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
