// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package awscli lets an unmodified AWS CLI judge `vpclab serve`: each error that EC2 is known to give is provoked by a
// call of the CLI, next to a call that differs in one value and succeeds. It is a test of processes, so it has no code of
// its own: the lab is the built binary, the client is Debian's awscli.
package awscli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// vpclab is the binary under test; MULTUS_VPC_BIN names its folder, otherwise it is built.
func vpclab() (path string, remove func(), err error) {
	if dir := os.Getenv("MULTUS_VPC_BIN"); dir != "" {
		return filepath.Join(dir, "vpclab"), func() {}, nil
	}
	dir, err := os.MkdirTemp("", "awscli-test-")
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "vpclab")
	out, err := exec.Command("go", "build", "-o", path, "github.com/multus-vpc/multus-vpc/vpclab").CombinedOutput()
	if err != nil {
		return "", nil, fmt.Errorf("build vpclab: %w\n%s", err, out)
	}
	return path, func() { _ = os.RemoveAll(dir) }, nil
}

// debianCLI is preferred to what else may be called aws.
const debianCLI = "/usr/bin/aws"

// cli is an AWS CLI of version 2, whose messages the suite reads.
func cli() (string, error) {
	path := debianCLI
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath("aws"); err != nil {
			return "", fmt.Errorf("%w: install Debian's package awscli", err)
		}
	}
	out, err := exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w\n%s", path, err, out)
	}
	if !strings.HasPrefix(string(out), "aws-cli/2.") {
		return "", fmt.Errorf("%s is no AWS CLI of version 2 but %s: install Debian's package awscli", path, bytes.TrimSpace(out))
	}
	return path, nil
}

// suite is what all scenes share.
type suite struct {
	aws, vpclab string
	calls       atomic.Int32 // of the CLI
	refusals    atomic.Int32 // those that EC2 refused, as expected
}

// lab is one `vpclab serve` and the CLI that speaks to it. A failed expectation ends the test.
type lab struct {
	*suite
	t          *testing.T
	service    string // ec2, autoscaling or cloudformation
	url        string // of the service
	scalingURL string
	stacksURL  string
	IDs        map[string]string // instance IDs by name

	interfaces []any // of describe-network-interfaces, read once
}

// start serves a scenario until the test ends; then SIGTERM must end it with status 0 and without a word.
func (s *suite) start(t *testing.T, scenario string) *lab {
	t.Helper()
	cmd := exec.Command(s.vpclab, "serve", "--scenario", "-")
	cmd.Stdin = strings.NewReader(scenario)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		_ = cmd.Wait() // its status adds nothing to what it said
		t.Fatalf("no ready line: %v; stderr: %s", err, &stderr)
	}
	t.Cleanup(func() {
		if signalErr := cmd.Process.Signal(syscall.SIGTERM); signalErr != nil {
			t.Errorf("signal vpclab: %v", signalErr)
		}
		if waitErr := cmd.Wait(); waitErr != nil || stderr.Len() > 0 {
			t.Errorf("vpclab after SIGTERM: %v; stderr: %s", waitErr, &stderr)
		}
	})
	var ready struct {
		EC2            string            `json:"ec2"`
		AutoScaling    string            `json:"autoscaling"`
		CloudFormation string            `json:"cloudformation"`
		IDs            map[string]string `json:"ids"`
	}
	if err = json.Unmarshal(line, &ready); err != nil {
		t.Fatalf("ready line %s: %v", line, err)
	}
	return &lab{suite: s, t: t, service: "ec2", url: ready.EC2, scalingURL: ready.AutoScaling, stacksURL: ready.CloudFormation, IDs: ready.IDs}
}

// scaling is the same lab, for calls of Auto Scaling.
func (l *lab) scaling() *lab {
	return &lab{suite: l.suite, t: l.t, service: "autoscaling", url: l.scalingURL, scalingURL: l.scalingURL, IDs: l.IDs}
}

// stacks is the same lab, for calls of CloudFormation.
func (l *lab) stacks() *lab {
	return &lab{suite: l.suite, t: l.t, service: "cloudformation", url: l.stacksURL, IDs: l.IDs}
}

// answer is what the CLI made of a call: output, or the error that EC2 answered.
type answer struct {
	output        any
	code, message string
}

// refusal is how the CLI prints an error of the service.
var refusal = regexp.MustCompile(`(?s)An error occurred \(([^)]+)\) when calling the \w+ operation(?: \([^)]*\))?: (.*)`)

// call runs `aws SERVICE COMMAND`; the words of the command are separated by spaces.
func (l *lab) call(command string) answer {
	l.t.Helper()
	l.calls.Add(1)
	args := append([]string{l.service, "--endpoint-url", l.url, "--output", "json", "--no-cli-pager"}, strings.Fields(command)...)
	cmd := exec.CommandContext(l.t.Context(), l.aws, args...)
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "HOME=/nonexistent", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=none", "AWS_DEFAULT_REGION=us-west-2",
		"AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true",
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if m := refusal.FindStringSubmatch(stderr.String()); err != nil && m != nil {
		return answer{code: m[1], message: strings.TrimSpace(m[2])}
	}
	if err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			l.t.Fatalf("aws %s %s: %v", l.service, command, err)
		}
		return answer{code: "no answer", message: strings.TrimSpace(stderr.String())}
	}
	var a answer
	if stdout.Len() > 0 && !strings.HasPrefix(command, "deploy ") { // which tells in words
		if err := json.NewDecoder(&stdout).Decode(&a.output); err != nil && !errors.Is(err, io.EOF) {
			l.t.Fatalf("aws %s %s: %v", l.service, command, err)
		}
	}
	return a
}

// accept makes a call that must succeed.
func (l *lab) accept(command string) answer {
	l.t.Helper()
	a := l.call(command)
	if a.code != "" {
		l.t.Fatalf("aws %s %s\n\trefused: %s: %s", l.service, command, a.code, a.message)
	}
	return a
}

// refuse makes a call that must be refused with the code, and the message unless it is empty.
func (l *lab) refuse(code, message, command string) {
	l.t.Helper()
	a := l.call(command)
	if a.code != code || (message != "" && a.message != message) {
		l.t.Fatalf("aws %s %s\n\t got: %s: %s\n\twant: %s: %s", l.service, command, a.code, a.message, code, message)
	}
	l.refusals.Add(1)
}

// alternative is the one value in which two calls differ: {of the refused call|of the accepted one}. An empty one is left
// out.
var alternative = regexp.MustCompile(`\{([^|{}]*)\|([^|{}]*)\}`)

// pair makes two calls that differ in the one value written as an [alternative]: the first must be refused, the second
// succeed. It returns the answer to the second.
func (l *lab) pair(code, message, command string) answer {
	l.t.Helper()
	if n := len(alternative.FindAllString(command, -1)); n != 1 {
		l.t.Fatalf("%s: %d alternatives", command, n)
	}
	l.refuse(code, message, alternative.ReplaceAllString(command, "$1"))
	return l.accept(alternative.ReplaceAllString(command, "$2"))
}

// eni is the ID of the instance's ENI at a device index of card 0, as it was when first asked for.
func (l *lab) eni(instance string, index int) string {
	l.t.Helper()
	if l.interfaces == nil {
		l.interfaces, _ = l.accept("describe-network-interfaces").at(l.t, "NetworkInterfaces").([]any)
	}
	for _, e := range l.interfaces {
		a := answer{output: e}
		if a.at(l.t, "Attachment.InstanceId") == l.IDs[instance] && a.at(l.t, "Attachment.DeviceIndex") == float64(index) {
			return a.text(l.t, "NetworkInterfaceId")
		}
	}
	l.t.Fatalf("%s has no ENI at device index %d", instance, index)
	return ""
}

// at is the part of the output at a path such as "Reservations.0.Instances"; nil when there is none.
func (a answer) at(t *testing.T, path string) any {
	t.Helper()
	v := a.output
	for step := range strings.SplitSeq(path, ".") {
		switch node := v.(type) {
		case map[string]any:
			v = node[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(node) {
				return nil
			}
			v = node[i]
		default:
			return nil
		}
	}
	return v
}

// text is the string at a path, which must be there.
func (a answer) text(t *testing.T, path string) string {
	t.Helper()
	s, ok := a.at(t, path).(string)
	if !ok {
		t.Fatalf("no text at %s of %v", path, a.output)
	}
	return s
}

// expect compares what is at the paths, as JSON.
func (a answer) expect(t *testing.T, want map[string]string) {
	t.Helper()
	for path, w := range want {
		b, err := json.Marshal(a.at(t, path))
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != w {
			t.Errorf("%s: got %s, want %s", path, b, w)
		}
	}
}
