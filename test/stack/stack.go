// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package stack finds the real programs of a Kubernetes node and control plane that tests run beside ours: etcd,
// kube-apiserver, whereabouts and Multus, unmodified, and their CustomResourceDefinitions. The modules below this folder
// pin them, each for itself, because they do not agree about the versions of what they share. How they are run is
// package kubernetes' affair (internal/lab/kubernetes), and the tests' own.
package stack

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs returns the folder of the programs: MULTUS_VPC_STACK, or what scripts/tools.sh says, which builds them the
// first time. That needs the source tree, and takes minutes.
func Programs() (string, error) {
	if dir := os.Getenv("MULTUS_VPC_STACK"); dir != "" {
		return dir, nil
	}
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the source tree: %w", err)
	}
	var stderr bytes.Buffer
	build := exec.Command("scripts/tools.sh", "test/stack")
	build.Dir, build.Stderr = filepath.Dir(strings.TrimSpace(string(mod))), &stderr
	dir, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("build etcd, kube-apiserver, whereabouts and Multus: %w\n%s", err, &stderr)
	}
	return strings.TrimSpace(string(dir)), nil
}

// Definitions reads the CustomResourceDefinitions of NetworkAttachmentDefinition and of whereabouts' kinds, as one YAML
// stream.
func Definitions(programs string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(programs, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no CustomResourceDefinitions", programs)
	}
	var stream bytes.Buffer
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		stream.WriteString("\n---\n")
		stream.Write(text)
	}
	return stream.Bytes(), nil
}
