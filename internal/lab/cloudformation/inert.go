// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Inert remembers resources that do nothing in the lab: they have an ID, ARNs, and can be listed. Which types are inert,
// and which of their properties the lab knows as changing nothing, is the table below. It is safe for concurrent use.
type Inert struct {
	region, account string

	mu   sync.Mutex
	made map[string]Resource // by type and Ref
}

// inertType is a type that does nothing in the lab.
type inertType struct {
	ref        string            // {name}, {region} and {account} stand for themselves
	attributes map[string]string // the same
	name       string            // the property that names it; a name is made up without
	properties []string
}

// inertTypes: the lab routes every subnet of a VPC to every other and has no way out, no IAM, no metrics and no logs.
var inertTypes = map[string]inertType{
	"AWS::EC2::InternetGateway":             {ref: "igw-{name}", properties: []string{"Tags"}},
	"AWS::EC2::VPCGatewayAttachment":        {ref: "IGW|{name}", properties: []string{"VpcId", "InternetGatewayId"}},
	"AWS::EC2::RouteTable":                  {ref: "rtb-{name}", properties: []string{"VpcId", "Tags"}},
	"AWS::EC2::Route":                       {ref: "r-{name}", properties: []string{"RouteTableId", "DestinationCidrBlock", "DestinationIpv6CidrBlock", "GatewayId"}},
	"AWS::EC2::SubnetRouteTableAssociation": {ref: "rtbassoc-{name}", properties: []string{"RouteTableId", "SubnetId"}},
	"AWS::EC2::SecurityGroupIngress": {
		ref:        "sgr-{name}",
		properties: []string{"GroupId", "IpProtocol", "FromPort", "ToPort", "SourceSecurityGroupId", "Description"},
	},
	"AWS::EC2::SecurityGroupEgress": {
		ref:        "sgr-{name}",
		properties: []string{"GroupId", "IpProtocol", "FromPort", "ToPort", "DestinationSecurityGroupId", "Description"},
	},
	"AWS::IAM::Role": {
		ref: "{name}", name: "RoleName", attributes: map[string]string{"Arn": "arn:aws:iam::{account}:role/{name}"},
		properties: []string{"AssumeRolePolicyDocument", "Description", "ManagedPolicyArns", "Policies"},
	},
	"AWS::IAM::InstanceProfile": {
		ref: "{name}", name: "InstanceProfileName", attributes: map[string]string{"Arn": "arn:aws:iam::{account}:instance-profile/{name}"},
		properties: []string{"Roles"},
	},
	"AWS::EKS::AccessEntry": {ref: "{name}", properties: []string{"ClusterName", "KubernetesGroups", "PrincipalArn", "Type"}},
	"AWS::EKS::PodIdentityAssociation": {
		ref:        "arn:aws:eks:{region}:{account}:podidentityassociation/lab/a-{name}",
		properties: []string{"ClusterName", "Namespace", "ServiceAccount", "RoleArn"},
	},
	"AWS::Logs::LogGroup": {
		ref: "{name}", name: "LogGroupName", attributes: map[string]string{"Arn": "arn:aws:logs:{region}:{account}:log-group:{name}:*"},
		properties: []string{"RetentionInDays"},
	},
	"AWS::Logs::MetricFilter": {ref: "{name}", properties: []string{"LogGroupName", "FilterPattern", "MetricTransformations"}},
	"AWS::SQS::Queue": {
		ref: "https://sqs.{region}.amazonaws.com/{account}/{name}", name: "QueueName",
		attributes: map[string]string{"Arn": "arn:aws:sqs:{region}:{account}:{name}", "QueueName": "{name}"},
		properties: []string{"MessageRetentionPeriod", "SqsManagedSseEnabled"},
	},
	"AWS::CloudWatch::Alarm": {ref: "{name}", name: "AlarmName", properties: []string{
		"AlarmActions", "AlarmDescription", "ComparisonOperator", "Dimensions", "EvaluationPeriods", "MetricName", "Namespace", "Period",
		"Statistic", "Threshold", "TreatMissingData",
	}},
}

// NewInert returns the provider of all inert types.
func NewInert(region, account string) *Inert {
	return &Inert{region: region, account: account, made: map[string]Resource{}}
}

// Providers returns it under each type's name.
func (n *Inert) Providers() map[string]Provider {
	out := map[string]Provider{}
	for t := range inertTypes {
		out[t] = n
	}
	return out
}

// Find returns a resource that exists, by its type and Ref.
func (n *Inert) Find(resourceType, ref string) (Resource, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, ok := n.made[resourceType+" "+ref]
	return r, ok
}

// Left returns type and Ref of what exists, sorted.
func (n *Inert) Left() (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k := range n.made {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Create remembers the resource.
func (n *Inert) Create(_ context.Context, r Request) (Physical, error) {
	t := inertTypes[r.Type]
	r.Properties.Ignore(t.properties...)
	digest := sha256.Sum256([]byte(r.Stack + " " + r.LogicalID))
	name := hex.EncodeToString(digest[:])[:17]
	if t.name != "" {
		name = r.Stack + "-" + r.LogicalID + "-" + name[:8]
		if given := r.Properties.String(t.name); given != "" {
			name = given
		}
	}
	out := Physical{Ref: n.expand(t.ref, name), Attributes: map[string]string{}}
	for k, format := range t.attributes {
		out.Attributes[k] = n.expand(format, name)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	key := r.Type + " " + out.Ref
	if _, exists := n.made[key]; exists {
		return Physical{}, fmt.Errorf("%s exists already", out.Ref)
	}
	n.made[key] = Resource{Request: r, Physical: out}
	return out, nil
}

func (n *Inert) expand(pattern, name string) string {
	return strings.NewReplacer("{name}", name, "{region}", n.region, "{account}", n.account).Replace(pattern)
}

// Delete forgets the resource.
func (n *Inert) Delete(_ context.Context, r Request, p Physical) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.made, r.Type+" "+p.Ref)
	return nil
}
