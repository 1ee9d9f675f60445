// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/multus-vpc/multus-vpc/internal/lab/workers"
)

const workersHelp = `Tell how workers get their ENIs, on this machine: the CloudFormation templates of cfn/ are deployed into
the lab, and the real function runs out of the package that a deployment uploads. A group of workers grows
and shrinks, events come twice, the function is killed, and in the end nothing is left.

Every line is an assertion with what was measured. The exit status is 1 when one of them is false.

It needs neither root nor ipvlan. "make demo-workers" builds what it needs.`

func (d *door) workersCommand() *cobra.Command {
	var templates, function string
	c := &cobra.Command{
		Use:   "workers [--templates FOLDER] [--function ZIP]",
		Short: "Tell how workers get their ENIs, each line an assertion",
		Long:  workersHelp,
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			cfg := workers.Config{Out: d.stdout, Terminal: d.onTerminal(), Architecture: architectures[runtime.GOARCH]}
			if cfg.Templates, err = beside(templates, "cfn", "--templates names the folder of the templates"); err != nil {
				return err
			}
			name := filepath.Join("dist", "lambda-"+runtime.GOARCH+".zip")
			if cfg.Package, err = beside(function, name, "make lambda builds it; --function names another one"); err != nil {
				return err
			}
			return workers.Tell(c.Context(), cfg)
		},
	}
	c.Flags().StringVar(&templates, "templates", "", "folder of vpc.yaml and multus-node-group.yaml (default: cfn, beside the folder of vpclab)")
	c.Flags().StringVar(&function, "function", "",
		"package of the function, for this machine's architecture (default: dist/lambda-ARCHITECTURE.zip, beside the folder of vpclab)")
	return c
}

// architectures are Lambda's names for those of Go.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "arm64"}

// beside is the path that was given, or else name beside the folder that vpclab itself lies in. It has to be there.
func beside(given, name, hint string) (string, error) {
	path := given
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find the folder of vpclab: %w", err)
		}
		path = filepath.Join(filepath.Dir(filepath.Dir(self)), name)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", &usageError{err: fmt.Errorf("there is no %s", path), hints: []string{hint}}
	} else if err != nil {
		return "", err
	}
	return path, nil
}
