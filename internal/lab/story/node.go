// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package story

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// node is a worker with an agent, and what its container runtime does.
type node struct {
	name, netns, region string
	binDir              string
	dir                 string // socket, ledger, log and the runtime's cache

	agent *exec.Cmd
	log   *os.File
	ended chan error // the agent's exit, once
}

func (n *node) socket() string { return filepath.Join(n.dir, "agent", "agent.sock") }

// start starts the agent in the worker's network namespace, with the settings of its DaemonSet.
func (n *node) start() (err error) {
	if err = os.MkdirAll(n.dir, 0o700); err != nil {
		return fmt.Errorf("start agent of %s: %w", n.name, err)
	}
	if n.log, err = os.OpenFile(filepath.Join(n.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return fmt.Errorf("start agent of %s: %w", n.name, err)
	}
	n.agent = exec.Command(filepath.Join(n.binDir, "agent"),
		"--socket", n.socket(),
		"--state-dir", filepath.Join(n.dir, "state"),
		"--metrics-address", "127.0.0.1:61690")
	n.agent.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"AWS_REGION=" + n.region,
		"AWS_ENDPOINT_URL_EC2=http://" + lab.EC2InWorker.String(),
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + lab.IMDSInWorker.String(),
	}
	n.agent.Stdout, n.agent.Stderr = n.log, n.log
	if err = netns.Do(n.netns, n.agent.Start); err != nil {
		return errors.Join(fmt.Errorf("start agent of %s: %w", n.name, err), n.log.Close())
	}
	n.ended = make(chan error, 1)
	go func() { n.ended <- n.agent.Wait() }()
	return nil
}

// stopTimeout is what an agent gets to end by itself.
const stopTimeout = 5 * time.Second

// stop ends the agent as its DaemonSet would, and by force when that takes too long. Stopping twice succeeds.
func (n *node) stop(ctx context.Context) error {
	if n.agent == nil {
		return nil
	}
	_ = n.agent.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-n.ended:
	case <-ctx.Done():
		return n.kill()
	}
	n.agent = nil
	return n.log.Close()
}

// kill ends the agent as the death of its worker does.
func (n *node) kill() error {
	if n.agent == nil {
		return nil
	}
	_ = n.agent.Process.Kill() // fails only when it has ended
	<-n.ended
	n.agent = nil
	return n.log.Close()
}

// logTailLines is how much of an agent's log a story that failed ends with.
const logTailLines = 12

// logTail is the end of the agent's log, or why there is none.
func (n *node) logTail() string {
	text, err := os.ReadFile(n.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-logTailLines):], "\n")
}

// status asks the agent, from the worker's network namespace: it answers nobody else.
func (n *node) status(ctx context.Context) (*agentapi.Status, error) {
	var resp agentapi.Response
	err := netns.Do(n.netns, func() (err error) {
		resp, err = agentapi.Client{Socket: n.socket()}.Call(ctx, agentapi.Request{Method: agentapi.MethodStatus})
		return err
	})
	if err != nil {
		return nil, err
	}
	if resp.Status == nil {
		return nil, errors.New("the agent answered without a status")
	}
	return resp.Status, nil
}

// network is a NetworkAttachmentDefinition's configuration.
type network struct {
	name        string
	deviceIndex int
}

// list is the network's configuration as Multus hands it to the plugins of a worker.
func (n *node) list(net network) (*libcni.NetworkConfigList, error) {
	config, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": net.name,
		"plugins": []any{map[string]any{
			"type": "vpcipvlan",
			"eni":  map[string]any{"deviceIndex": net.deviceIndex},
			"ipam": map[string]any{
				"type": "vpcipam", "agentSocket": n.socket(),
				"routes": []any{map[string]any{"dst": "10.10.0.0/16"}}, // the other subnets of the VPC, through this ENI
			},
		}},
	})
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromBytes(config)
}

// attached is a pod's interface on a network.
type attached struct {
	network
	ifName string
	addr   netip.Addr
	took   time.Duration // of ADD
}

// runtimeConf is what a container runtime says about a pod.
func runtimeConf(p *demoPod, ifName string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: p.Name, NetNS: p.Netns, IfName: ifName,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", "demo"},
			{"K8S_POD_NAME", p.name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.Name},
			{"K8S_POD_UID", p.Name},
		},
	}
}

// add runs ADD as the worker's container runtime does.
func (n *node) add(ctx context.Context, p *demoPod, net network, ifName string) (attached, error) {
	list, err := n.list(net)
	if err != nil {
		return attached{}, err
	}
	a := attached{network: net, ifName: ifName}
	start := time.Now()
	var result *types100.Result
	err = netns.Do(n.netns, func() error {
		r, failed := n.cni().AddNetworkList(ctx, list, runtimeConf(p, ifName))
		if failed != nil {
			return failed
		}
		result, failed = types100.NewResultFromResult(r)
		return failed
	})
	a.took = time.Since(start)
	if err != nil {
		return attached{}, fmt.Errorf("ADD: %w", err)
	}
	if len(result.IPs) != 1 {
		return attached{}, fmt.Errorf("ADD returned %d addresses, want 1", len(result.IPs))
	}
	addr, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
	a.addr = addr.Unmap()
	p.nets = append(p.nets, a)
	return a, nil
}

// del runs DEL as the worker's container runtime does.
func (n *node) del(ctx context.Context, p *demoPod, a attached) error {
	list, err := n.list(a.network)
	if err != nil {
		return err
	}
	err = netns.Do(n.netns, func() error { return n.cni().DelNetworkList(ctx, list, runtimeConf(p, a.ifName)) })
	if err != nil {
		return fmt.Errorf("DEL: %w", err)
	}
	return nil
}

func (n *node) cni() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{n.binDir}, filepath.Join(n.dir, "cni"), nil)
}
