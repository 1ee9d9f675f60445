// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package awscli

import "testing"

// stacks deploys two of our templates as docs/deploy.md says.
func stacks(t *testing.T, l *lab) {
	c := l.stacks()
	c.accept("deploy --stack-name net --template-file ../../cfn/vpc.yaml")
	c.accept("describe-stacks --stack-name net").expect(t, map[string]string{
		"Stacks.0.StackStatus":         `"CREATE_COMPLETE"`,
		"Stacks.0.Outputs.3.OutputKey": `"VpcId"`,
	})
	l.accept("describe-subnets --filters Name=tag:Name,Values=net-multus-1-2").expect(t, map[string]string{
		"Subnets.0.AvailabilityZone": `"us-west-2b"`, "Subnets.1": "null",
	})
	// A stack is not changed here, and the refusal says what to do.
	c.refuse("ValidationError", "the lab does not change stacks: delete net, and deploy it anew", "deploy --stack-name net --template-file ../../cfn/vpc.yaml")
	c.refuse("AlreadyExistsException", "Stack [net] already exists", "create-stack --stack-name net --template-body file://../../cfn/vpc.yaml")

	roles := "create-stack --stack-name roles --template-body file://../../cfn/pod-roles.yaml --parameters ParameterKey=ClusterName,ParameterValue=c"
	c.pair("InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_IAM]", roles+" {|--capabilities=CAPABILITY_IAM}")
	c.accept("wait stack-create-complete --stack-name roles")
	c.accept("describe-stack-resources --stack-name roles --logical-resource-id AgentRole").expect(t, map[string]string{
		"StackResources.0.ResourceStatus": `"CREATE_COMPLETE"`,
	})
	c.refuse("ValidationError", "Parameters.ClusterName: has no default: it must be given",
		"create-stack --stack-name more --template-body file://../../cfn/pod-roles.yaml --capabilities CAPABILITY_IAM")

	c.accept("delete-stack --stack-name net")
	c.accept("wait stack-delete-complete --stack-name net")
	c.refuse("ValidationError", "Stack with id net does not exist", "describe-stacks --stack-name net")
	c.accept("delete-stack --stack-name net") // once more
	l.accept("describe-subnets --filters Name=tag:Name,Values=net-multus-1-2").expect(t, map[string]string{"Subnets.0": "null"})
	c.refuse("InvalidAction", "Could not find operation ListStacks for version 2010-05-15", "list-stacks")
}
