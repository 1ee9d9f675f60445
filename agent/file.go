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
	// Interfaces are ENIs that the agent gives the worker, as in [workereni.ParseInterfaces]. Default none.
	Interfaces json.RawMessage `json:"interfaces,omitempty"`
	// Owner is who these ENIs belong to, such as the cluster's name. Required with Interfaces.
	Owner string `json:"owner,omitempty"`
	// Tags are further ones of these ENIs. Default none.
	Tags map[string]string `json:"tags,omitempty"`
	// AwaitInterfaces is how many ENIs for pods the worker is to have before it counts as ready, whoever makes them. Default 0.
	AwaitInterfaces *int `json:"awaitInterfaces,omitempty"`
	// Sync says what pods may claim through --sync-socket.
	Sync *syncConfig `json:"sync,omitempty"`
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
	if f.Sync != nil {
		o.overlaySync(*f.Sync, in)
	}
	in("awaitInterfaces", setCount(&o.awaitInterfaces, f.AwaitInterfaces))
	for _, err := range o.overlayInterfaces(f) {
		wrong = append(wrong, fmt.Errorf("--config %s: %w", o.configFile, err))
	}
	return errors.Join(wrong...)
}

// parseFile reads the file key by key, so that one that is wrong does not hide another.
func parseFile(text []byte) (f fileConfig, wrong []error) {
	doc, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return f, []error{err}
	}
	return f, parseObject(doc, "", reflect.ValueOf(&f).Elem())
}

// words say what a value of the file must be.
func words(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[*int]():
		return "a whole number"
	case reflect.TypeFor[*string](), reflect.TypeFor[string]():
		return "a text"
	case reflect.TypeFor[map[string]string]():
		return "a mapping of keys to texts"
	case reflect.TypeFor[[]string]():
		return "a list of ranges"
	case reflect.TypeFor[[]eni.SubnetID]():
		return "a list of subnet IDs"
	}
	return "a mapping of keys to values"
}

// parseObject reads a mapping into a struct, and says what is wrong with each key by its path.
func parseObject(doc []byte, path string, into reflect.Value) (wrong []error) {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(doc, &given); err != nil {
		if path == "" {
			return []error{errors.New("the file is not a mapping of keys to values")}
		}
		return []error{fmt.Errorf("%s: %s is not %s", strings.TrimSuffix(path, "."), doc, words(into.Type()))}
	}
	known := keys(into)
	for _, key := range slices.Sorted(maps.Keys(given)) {
		field, ok := known[key]
		value := given[key]
		switch {
		case !ok:
			wrong = append(wrong, fmt.Errorf("%s: unknown key (value %s); there are %s", path+key, value, strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
		case field.Kind() == reflect.Pointer && field.Type().Elem().Kind() == reflect.Struct && string(value) != "null":
			field.Set(reflect.New(field.Type().Elem()))
			wrong = append(wrong, parseObject(value, path+key+".", field.Elem())...)
		default:
			if err := json.Unmarshal(value, field.Addr().Interface()); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %s is not %s", path+key, value, words(field.Type())))
			}
		}
	}
	return wrong
}

// keys are the fields of a struct by their names in the file.
func keys(of reflect.Value) map[string]reflect.Value {
	known := map[string]reflect.Value{}
	for i := range of.NumField() {
		key, _, _ := strings.Cut(of.Type().Field(i).Tag.Get("json"), ",")
		known[key] = of.Field(i)
	}
	return known
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
