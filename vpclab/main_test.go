// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vpclab": main})
}

func TestScripts(t *testing.T) {
	example, err := filepath.Abs("../examples/lab/two-workers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("EXAMPLE", example)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits STATUS COMMAND [ARGUMENT…] runs a command that must exit with the status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND [ARGUMENT...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exits with %d, want %d", args[1], got, want)
	}
}

// serving runs `vpclab serve`, see [running].
func serving(t *testing.T, scenario string) (line ready, stop func()) {
	t.Helper()
	return running(t, "serve", scenario)
}

// running runs a command of vpclab in this process and returns its ready line. When the test ends it is stopped, and
// must have ended well.
func running(t *testing.T, command, scenario string) (line ready, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, stdout := io.Pipe()
	var stderr bytes.Buffer
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{command, "--scenario", scenario}, os.Getenv, strings.NewReader(""), stdout, &stderr)
		_ = stdout.Close()
	}()
	first, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("no ready line: %v; stderr: %s", err, stderr.String())
	}
	if err := json.Unmarshal(first, &line); err != nil {
		t.Fatalf("ready line %s: %v", first, err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if got := <-status; got != exitOK || stderr.Len() > 0 {
			t.Errorf("exit status %d, stderr %q", got, stderr.String())
		}
	}
	t.Cleanup(stop)
	return line, stop
}

func TestServeAnswersUntilStopped(t *testing.T) {
	line, stop := serving(t, "../examples/lab/two-workers.yaml")
	if len(line.IMDS) != 2 || len(line.IDs) != 2 || line.Netns != nil {
		t.Fatalf("ready line %+v", line)
	}
	metadata := imds.New(imds.Options{Endpoint: line.IMDS["worker-2"]})
	doc, err := metadata.GetInstanceIdentityDocument(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if doc.InstanceID != line.IDs["worker-2"] {
		t.Errorf("the metadata of worker-2 is of %s, want %s", doc.InstanceID, line.IDs["worker-2"])
	}
	api := ec2.New(ec2.Options{
		Region:       doc.Region,
		BaseEndpoint: aws.String(line.EC2),
		Credentials:  aws.NewCredentialsCache(ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = metadata })),
	})
	out, err := api.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{line.IDs["worker-1"]}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(out.Reservations); n != 1 {
		t.Errorf("%d reservations", n)
	}
	res, err := http.Get(line.EC2 + "/_lab/calls")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"calls":[{"action":"DescribeInstances","caller":"` + line.IDs["worker-2"] + `","result":"ok","count":1}]}`
	if diff := cmp.Diff(want, strings.TrimSpace(string(body))); diff != "" {
		t.Error(diff)
	}
	stop()
	for _, url := range []string{line.EC2, line.AutoScaling, line.CloudFormation, line.IMDS["worker-1"], line.IMDS["worker-2"]} {
		if c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
			_ = c.Close()
			t.Errorf("%s still answers", url)
		}
	}
}
