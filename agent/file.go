// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// fileConfig is the YAML of --config. Its names are the Amazon VPC CNI's where they mean the same.
type fileConfig struct {
	// WarmIPTarget is how many addresses without a pod each active ENI keeps. Default 5.
	WarmIPTarget *int `json:"warmIPTarget,omitempty"`
	// MinimumIPTarget is how many addresses in all each active ENI keeps at least. Default 14.
	MinimumIPTarget *int `json:"minimumIPTarget,omitempty"`
	// IPCooldownPeriod, in seconds, is how long an address that was given back is kept for the same pod. Default 30.
	IPCooldownPeriod *int `json:"ipCooldownPeriod,omitempty"`
	// ReconcileInterval, in seconds, is how often holds are compared with the network namespaces. Default 10.
	ReconcileInterval *int `json:"reconcileInterval,omitempty"`
	// MassReapDelay, in seconds, is how long after more than half of the namespaces vanished at once a second look
	// decides. Default 30.
	MassReapDelay *int `json:"massReapDelay,omitempty"`
	// ActiveSubnets are the IDs of subnets whose ENIs take stock without waiting for a first pod. Default none.
	ActiveSubnets []eni.SubnetID `json:"activeSubnets,omitempty"`
}

// readFile overlays the YAML file on the defaults, as far as it can be read: the rest is judged all the same.
func (o *options) readFile() error {
	if o.configFile == "" {
		return nil
	}
	text, err := os.ReadFile(o.configFile)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	return o.overlay(text)
}

// overlay takes over what the file says and reports all that is wrong with it.
func (o *options) overlay(text []byte) error {
	f, wrong := parseFile(text)
	for i, err := range wrong {
		wrong[i] = fmt.Errorf("--config %s: %w", o.configFile, err)
	}
	in := func(key string, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("--config %s: %s: %w", o.configFile, key, err))
		}
	}
	in("warmIPTarget", setCount(&o.pool.WarmIPTarget, f.WarmIPTarget))
	in("minimumIPTarget", setCount(&o.pool.MinimumIPTarget, f.MinimumIPTarget))
	in("ipCooldownPeriod", setSeconds(&o.pool.Cooldown, f.IPCooldownPeriod, 1))
	in("reconcileInterval", setSeconds(&o.pool.ReconcileInterval, f.ReconcileInterval, 1))
	in("massReapDelay", setSeconds(&o.pool.MassReapDelay, f.MassReapDelay, 0))
	for i, s := range f.ActiveSubnets {
		if !strings.HasPrefix(string(s), "subnet-") {
			in(fmt.Sprintf("activeSubnets[%d]", i), fmt.Errorf("%q is not a subnet ID (subnet-…)", s))
		}
	}
	o.pool.ActiveSubnets = f.ActiveSubnets
	return errors.Join(wrong...)
}

// parseFile reads the file key by key, so that one that is wrong does not hide another.
func parseFile(text []byte) (f fileConfig, wrong []error) {
	doc, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return f, []error{err}
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(doc, &fields); err != nil {
		return f, []error{errors.New("the file is not a mapping of keys to values")}
	}
	known := f.keys()
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		want, ok := known[key]
		if !ok {
			wrong = append(wrong, fmt.Errorf("%s: unknown key (value %s); there are %s",
				key, fields[key], strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
			continue
		}
		one := append(append([]byte(`{"`+key+`":`), fields[key]...), '}')
		if err := json.Unmarshal(one, &f); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %s is not %s", key, fields[key], want))
		}
	}
	return f, wrong
}

// keys are the file's keys, each with what its value must be.
func (f fileConfig) keys() map[string]string {
	words := map[reflect.Type]string{
		reflect.TypeFor[*int]():           "a whole number",
		reflect.TypeFor[[]eni.SubnetID](): "a list of subnet IDs",
	}
	keys := map[string]string{}
	for field := range reflect.TypeFor[fileConfig]().Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		keys[key] = words[field.Type]
	}
	return keys
}

// setCount puts a number that was given where it belongs.
func setCount(to *int, given *int) error {
	if given == nil {
		return nil
	}
	if *given < 0 {
		return fmt.Errorf("%d is not 0 or more", *given)
	}
	*to = *given
	return nil
}

// maxPeriod, a day in seconds, catches slips: nobody means an address to cool, or a dead pod to go unnoticed, for longer.
const maxPeriod = 24 * 60 * 60

// setSeconds puts a period that was given where it belongs.
func setSeconds(to *time.Duration, given *int, least int) error {
	if given == nil {
		return nil
	}
	if *given < least || *given > maxPeriod {
		return fmt.Errorf("%d is not between %d and %d seconds", *given, least, maxPeriod)
	}
	*to = time.Duration(*given) * time.Second
	return nil
}
