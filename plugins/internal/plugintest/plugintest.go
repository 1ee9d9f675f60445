// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package plugintest lets scripts run the two plugins as a runtime does: processes with an environment and standard
// input, an agent on a socket, network namespaces. Only the plugins' tests use it. The real agent and the VPC behind it
// belong to other tests.
package plugintest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// workerVar marks the process whose network namespace is the worker.
const workerVar = "PLUGINTEST_WORKER"

// Main runs the tests, or the command that a script has started. The tests run in a second process, in a network
// namespace of their own that stands for the worker: ENIs' links are made there.
func Main(m *testing.M, commands map[string]func()) {
	commands["fakeagent"] = func() { os.Exit(agentMain(os.Args[1:], os.Stderr)) }
	commands["fakeipam"] = func() { os.Exit(ipamMain(os.Getenv, os.Stdin, os.Stdout)) }
	commands["unread"] = func() { os.Exit(unreadMain(os.Args[1:], os.Stdin, os.Stderr)) }
	_, isCommand := commands[filepath.Base(os.Args[0])]
	if !isCommand && os.Getenv(workerVar) == "" && os.Getuid() == 0 {
		os.Exit(asWorker())
	}
	testscript.Main(m, commands)
}

func asWorker() int {
	runtime.LockOSThread() // the death of the thread would count as the parent's (prctl(2), PR_SET_PDEATHSIG)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), workerVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		_, _ = fmt.Fprintln(os.Stderr, "plugintest:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// pods numbers the namespaces of this process.
type pods struct{ made atomic.Int64 }

// Run runs the scripts of a folder. Each has CNI_* of an ADD of net1 in a new, empty network namespace; $SOCK is where
// fakeagent listens and the plugins look.
func Run(t *testing.T, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	var p pods
	testscript.Run(t, testscript.Params{
		Dir: dir, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: p.setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"eni":      addENI,
			"inpod":    inPod,
			"listens":  listens,
			"result":   result,
			"withprev": withPrev,
		},
	})
}

func (p *pods) setup(env *testscript.Env) error {
	name := fmt.Sprintf("plugintest-%d-%d", os.Getpid(), p.made.Add(1))
	path, err := netns.Create(name)
	if err != nil {
		return err
	}
	env.Defer(func() {
		if err := netns.Delete(name); err != nil {
			env.T().Fatal(err)
		}
	})
	sock := filepath.Join(env.WorkDir, "agent", "agent.sock")
	env.Vars = append(env.Vars,
		"SOCK="+sock, "HOLDS="+filepath.Join(env.WorkDir, "holds"), "MULTUS_VPC_AGENT_SOCKET="+sock,
		"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS="+path, "CNI_IFNAME=net1", "CNI_PATH="+commandDir(env),
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=ns1;K8S_POD_NAME=amf-0;K8S_POD_UID=u1",
	)
	return nil
}

// commandDir is where testscript has put the commands.
func commandDir(env *testscript.Env) string {
	for _, dir := range filepath.SplitList(env.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "fakeipam")); err == nil {
			return dir
		}
	}
	return "/nowhere"
}

// listens waits until a fakeagent that was started in the background listens. STATUS alone needs it: the other verbs
// are patient with an agent that starts.
func listens(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: listens")
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if conn, err := net.Dial("unix", ts.Getenv("SOCK")); err == nil {
			ts.Check(conn.Close())
			return
		}
	}
	ts.Fatalf("nobody listens on %s", ts.Getenv("SOCK"))
}

func text(ts *testscript.TestScript, args []string) string {
	if len(args) != 1 {
		ts.Fatalf("want one argument")
	}
	return strings.TrimSpace(ts.ReadFile(args[0]))
}
