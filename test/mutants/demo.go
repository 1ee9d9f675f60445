// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// judgeByDemo tells the demo's story with the programs in bin until the first line that fails.
func (h hunt) judgeByDemo(ctx context.Context, m mutant, bin string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.runner, "-ship", bin, filepath.Join(bin, "vpclab"), "demo")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it takes its machine down with it
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err = cmd.Start(); err != nil {
		return "", err
	}
	told, failed := 0, ""
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "✓") {
			told++
		}
		if strings.HasPrefix(line, "✗") && failed == "" {
			failed = line
			if m.file != "" {
				cancel() // the rest of the story adds nothing
			}
		}
	}
	err = cmd.Wait()
	switch {
	case failed == "" && m.file == "" && err == nil && told > 0:
		return fmt.Sprintf("the whole story holds, %d lines", told), nil
	case failed == "":
		return "", fmt.Errorf("no line of the demo failed (%d held; %v)\n%s", told, cmd.ProcessState, &stderr)
	case m.file == "":
		return "", fmt.Errorf("the demo fails without any fault: %s", failed)
	case !strings.Contains(failed, m.noticed):
		return "", fmt.Errorf("the demo fails at %q, want it at %q", failed, m.noticed)
	}
	return "noticed: " + brief(failed), nil
}

// brief is the start of a line of the story, without the padding between its columns.
func brief(line string) string {
	text := []rune(strings.Join(strings.Fields(line), " "))
	if len(text) > 160 {
		text = append(text[:159], '…')
	}
	return string(text)
}
