// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"fmt"
	"net/netip"
	"strings"
)

// APIError is what EC2 answers to a call that it refuses.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html
type APIError struct {
	Code    string
	Message string
	Status  int // HTTP status; 0 means 400
}

func (e *APIError) Error() string { return e.Code + ": " + e.Message }

// HTTPStatus is the status that goes with the error.
func (e *APIError) HTTPStatus() int {
	if e.Status == 0 {
		return 400
	}
	return e.Status
}

// Errorf makes an error with status 400.
func Errorf(code, format string, args ...any) *APIError {
	return &APIError{Code: code, Message: fmt.Sprintf(format, args...)}
}

// InvalidValue makes an InvalidParameterValue, EC2's code for nearly everything about addresses.
func InvalidValue(format string, args ...any) *APIError {
	return Errorf("InvalidParameterValue", format, args...)
}

// The refusals that more than one call gives. Each names where its wording was seen.

// The VPC CNI takes the ID out of this message (badENIID):
// https://github.com/aws/amazon-vpc-cni-k8s/blob/master/pkg/awsutils/awsutils.go
func errENINotFound(id string) *APIError {
	return Errorf("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
}

// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html
func errInstanceNotFound(ids ...string) *APIError {
	if len(ids) == 1 {
		return Errorf("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", ids[0])
	}
	return Errorf("InvalidInstanceID.NotFound", "The instance IDs '%s' do not exist", strings.Join(ids, ", "))
}

// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html
func errSubnetNotFound(id string) *APIError {
	return Errorf("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
}

// The brackets list the taken addresses, separated by ", "; Cilium and others read them with a regular expression. The
// wording stands in the documentation of Ansible's module:
// https://github.com/ansible/ansible/blob/stable-2.9/lib/ansible/modules/cloud/amazon/ec2_eni.py
func errMoveNotAllowed[T fmt.Stringer](taken []T) *APIError {
	return InvalidValue("[%s] assigned, but move is not allowed.", joined(taken))
}

// RunInstances names the address: https://github.com/JamesWoolfenden/terraform-aws-cassandra/issues/18.
// unverified: that the other calls do not.
func errLaunchOutsideSubnet(a netip.Addr) *APIError {
	return InvalidValue("Address %s does not fall within the subnet's address range", a)
}

func errOutsideSubnet() *APIError {
	return InvalidValue("Address does not fall within the subnet's address range")
}

// The five addresses: https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html. EC2 words it differently
// in AssignPrivateIpAddresses and where an ENI is created. Users report both; unverified: where each one ends.
func errReservedOnAssign(a netip.Addr) *APIError {
	return InvalidValue("Address %s is in subnet's reserved range.", a)
}

func errReservedOnCreate(a netip.Addr) *APIError {
	return InvalidValue("Address %s is in subnet's reserved address range", a)
}

// https://github.com/aws/amazon-vpc-cni-k8s/issues/989
func errAddressLimit() *APIError {
	return Errorf("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
}

// unverified: neither code nor wording for too many IPv6 addresses was found in any public source.
func errIPv6Limit() *APIError {
	return Errorf("PrivateIpAddressLimitExceeded", "Number of IPv6 addresses will exceed limit.")
}

// https://github.com/aws/amazon-vpc-cni-k8s/pull/1773
func errSubnetFull() *APIError {
	return Errorf("InsufficientFreeAddressesInSubnet",
		"The specified subnet does not have enough free addresses to satisfy the request.")
}

// https://github.com/aws/amazon-vpc-cni-k8s/pull/1585
func errNoFreePrefix() *APIError {
	return Errorf("InsufficientCidrBlocks",
		"The specified subnet does not have enough free cidr blocks to satisfy the request.")
}

// CreateNetworkInterface does not say which: https://github.com/pulumi/pulumi-aws/issues/2169
func errCreateInUse() *APIError {
	return Errorf("InvalidIPAddress.InUse", "The specified address is already in use.")
}

// RunInstances names the address. unverified: the wording.
func errLaunchInUse(a netip.Addr) *APIError {
	return Errorf("InvalidIPAddress.InUse", "Address %s is in use.", a)
}

// Netflix's Titus matches on this wording: https://github.com/Netflix/titus-executor
func errNotAssigned(eniID string) *APIError {
	return InvalidValue("Some of the specified addresses are not assigned to interface %s", eniID)
}

// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html (MissingParameter)
func errMissing(name string) *APIError {
	return Errorf("MissingParameter", "The request must contain the parameter %s", name)
}

// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html (InvalidParameterCombination)
func errCombination(format string, args ...any) *APIError {
	return Errorf("InvalidParameterCombination", format, args...)
}

func joined[T fmt.Stringer](list []T) string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = v.String()
	}
	return strings.Join(s, ", ")
}
