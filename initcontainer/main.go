// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command initcontainer registers the addresses of a pod's ipvlan interfaces in EC2 once, before the pod's containers start. This door only calls internal/podprogram.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/multus-vpc/multus-vpc/internal/podprogram"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := podprogram.Program{
		Name: "initcontainer", Mode: podprogram.Once, Args: os.Args[1:], Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr,
	}.Run(ctx)
	stop()
	os.Exit(code)
}
