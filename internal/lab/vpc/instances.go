// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"maps"
	"slices"
	"time"
)

// Launch is what RunInstances made.
type Launch struct {
	ReservationID string
	Instances     []Instance
	ENIs          []ENI // of all instances
}

// RunInstances launches MaxCount instances, all or none (the lab has no scarcity that MinCount could be for); they run
// when they have booted.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
func (c *Cloud) RunInstances(now time.Time, in RunInstancesInput) (out Launch, failure error) {
	failure = c.change(now, func(tx *change) error {
		again, ok, err := repeated[Launch](tx, "RunInstances", in.ClientToken, in)
		if ok || err != nil {
			out = again
			return err
		}
		t, specs, err := checkLaunch(in)
		if err != nil {
			return err
		}
		out.ReservationID = tx.newID("r")
		for index := range in.MaxCount {
			i := Instance{
				ID: tx.newID("i"), ReservationID: out.ReservationID, Type: t.Name, ImageID: in.ImageID, State: StateRunning,
				LaunchIndex: index, LaunchTime: tx.stamp(), RunsFrom: tx.now.Add(tx.cfg.Boot), ClientToken: in.ClientToken, OwnerID: tx.cfg.AccountID,
				Metadata: in.Metadata, Tags: maps.Clone(in.Tags),
			}
			i, enis, err := tx.launch(i, t, specs)
			if err != nil {
				return err
			}
			if in.AZ != "" && in.AZ != i.AZ {
				// https://github.com/InQuicker/kaws/pull/11
				return InvalidValue("Value (%s) for parameter availabilityZone is invalid. Subnet '%s' is in the availability zone %s",
					in.AZ, i.SubnetID, i.AZ)
			}
			out.Instances, out.ENIs = append(out.Instances, i), append(out.ENIs, enis...)
		}
		remember(tx, "RunInstances", in.ClientToken, in, out)
		return nil
	})
	if failure != nil {
		return Launch{}, failure
	}
	return out, nil
}

// maxLaunch stands for an account's quota, which EC2 counts in vCPUs.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits
const maxLaunch = 1000

// checkLaunch refuses what is wrong with the request itself and says which ENIs an instance gets.
func checkLaunch(in RunInstancesInput) (InstanceType, []InterfaceSpec, error) {
	t, ok := LookupInstanceType(in.InstanceType)
	switch {
	case in.MinCount < 1 || in.MaxCount < in.MinCount:
		return t, nil, InvalidValue("Invalid value '%d' for maxCount or '%d' for minCount", in.MaxCount, in.MinCount)
	case in.MaxCount > maxLaunch:
		return t, nil, Errorf("InstanceLimitExceeded", "You have requested more instances (%d) than your current instance limit of %d "+
			"allows for the specified instance type.", in.MaxCount, maxLaunch)
	case !ok:
		return t, nil, InvalidValue("Invalid value '%s' for InstanceType.", in.InstanceType)
	case len(in.Interfaces) == 0 && in.SubnetID == "":
		// unverified: the code and wording in a Region without default VPC.
		return t, nil, Errorf("MissingInput", "No subnets found for the default VPC. Please specify a subnet.")
	}
	specs := slices.Clone(in.Interfaces)
	if len(specs) == 0 {
		specs = []InterfaceSpec{{SubnetID: in.SubnetID, Groups: in.Groups, AddressRequest: in.AddressRequest}}
	} else if what := instanceLevel(in); what != "" {
		// https://github.com/aws/aws-cli/issues/809 and 518, https://github.com/ansible/ansible/issues/48109
		return t, nil, errCombination("Network interfaces and an instance-level %s may not be specified on the same request", what)
	}
	if !slices.ContainsFunc(specs, func(s InterfaceSpec) bool { return s.DeviceIndex == 0 && s.NetworkCardIndex == 0 }) {
		// https://github.com/awsdocs/aws-cloudformation-user-guide/pull/449; unverified: the code.
		return t, nil, errCombination("When specifying network interfaces, you must include a device at index 0")
	}
	if in.MaxCount > 1 && slices.ContainsFunc(specs, func(s InterfaceSpec) bool {
		return s.NetworkInterfaceID != "" || s.Primary.IsValid() || len(s.Secondary)+len(s.IPv6)+len(s.Prefixes)+len(s.IPv6Prefixes) > 0
	}) {
		// unverified: the wording.
		return t, nil, errCombination("Interfaces and addresses can be named for a single instance only.")
	}
	for i := range specs {
		specs[i].Tags = in.InterfaceTags
	}
	return t, specs, nil
}

func instanceLevel(in RunInstancesInput) string {
	switch {
	case in.SubnetID != "":
		return "subnet ID"
	case len(in.Groups) > 0:
		return "security groups"
	case in.Primary.IsValid():
		return "private IP address"
	case len(in.IPv6) > 0 || in.IPv6Count > 0:
		return "IPv6 addresses"
	}
	return ""
}

// launch makes one instance with its ENIs, the primary one first.
func (tx *change) launch(i Instance, t InstanceType, specs []InterfaceSpec) (Instance, []ENI, error) {
	specs = slices.Clone(specs)
	slices.SortStableFunc(specs, func(a, b InterfaceSpec) int {
		return (a.NetworkCardIndex-b.NetworkCardIndex)*1000 + a.DeviceIndex - b.DeviceIndex
	})
	var enis []ENI
	for n, spec := range specs {
		e, err := tx.launchENI(spec, t)
		if err != nil {
			return Instance{}, nil, err
		}
		if n == 0 {
			i.AZ, i.VPCID, i.SubnetID = e.AZ, e.VPCID, e.SubnetID
		}
		deletes := spec.NetworkInterfaceID == ""
		if spec.DeleteOnTermination != nil {
			deletes = *spec.DeleteOnTermination
		}
		if e, err = tx.attach(e, i, spec.NetworkCardIndex, spec.DeviceIndex, deletes); err != nil {
			return Instance{}, nil, err
		}
		enis = append(enis, e)
	}
	tx.putInstance(i)
	return i, enis, nil
}

// launchENI finds or makes one ENI of a launch.
func (tx *change) launchENI(spec InterfaceSpec, t InstanceType) (ENI, error) {
	if spec.NetworkInterfaceID != "" {
		if spec.SubnetID != "" {
			// unverified: the wording.
			return ENI{}, errCombination("A network interface ID and a subnet ID may not be specified on the same interface")
		}
		return tx.eni(spec.NetworkInterfaceID)
	}
	if spec.SubnetID == "" {
		return ENI{}, errMissing("subnetId")
	}
	s, err := tx.subnet(spec.SubnetID)
	if err != nil {
		return ENI{}, err
	}
	return tx.createENI(s, spec, t, true)
}

// TerminateInstances ends instances, all or none of those named. ENIs with DeleteOnTermination go with them and free
// their addresses; the others are detached and keep theirs. Terminating twice succeeds.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_TerminateInstances.html
func (c *Cloud) TerminateInstances(now time.Time, ids []string) (out []StateChange, failure error) {
	failure = c.change(now, func(tx *change) error {
		if len(ids) == 0 {
			return errMissing("InstanceId")
		}
		var found []Instance
		var missing []string
		for _, id := range unique(ids) {
			i, err := tx.instance(id)
			if err != nil {
				missing = append(missing, id)
			}
			found = append(found, i)
		}
		if len(missing) > 0 {
			return errInstanceNotFound(missing...)
		}
		for _, i := range found {
			s := StateChange{InstanceID: i.ID, Previous: i.State, Current: StateShuttingDown}
			if i.State == StateTerminated {
				s.Current = StateTerminated
			} else if err := tx.terminate(i); err != nil {
				return err
			}
			out = append(out, s)
		}
		return nil
	})
	if failure != nil {
		return nil, failure
	}
	return out, nil
}

func (tx *change) terminate(i Instance) error {
	for _, e := range tx.attachedTo(i.ID) {
		deletes := e.Attachment.DeleteOnTermination
		e.Attachment = nil
		err := tx.putENI(e)
		if deletes && err == nil {
			err = tx.removeENI(e)
		}
		if err != nil {
			return err
		}
	}
	i.State, i.TerminatedAt = StateTerminated, tx.now
	tx.putInstance(i)
	return nil
}
