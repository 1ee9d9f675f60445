// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package plugintest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
)

// unreadMain is "unread COMMAND": it runs the command for a runtime that is gone. Nobody reads what the command writes.
func unreadMain(args []string, stdin io.Reader, stderr io.Writer) int {
	reader, writer, err := os.Pipe()
	if err == nil {
		err = reader.Close()
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "unread:", err)
		return 2
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, writer, writer
	if err = cmd.Run(); err != nil {
		_, _ = fmt.Fprintln(stderr, "unread:", err)
		return 1
	}
	return 0
}
