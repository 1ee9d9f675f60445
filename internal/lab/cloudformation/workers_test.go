// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/iam"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

const workers = `AWSTemplateFormatVersion: "2010-09-09"
Resources:
  Net:
    Type: AWS::EC2::VPC
    Properties: {CidrBlock: 10.10.0.0/16}
  Subnet:
    Type: AWS::EC2::Subnet
    Properties: {VpcId: !Ref Net, CidrBlock: 10.10.1.0/24, AvailabilityZone: us-west-2a}
  Template:
    Type: AWS::EC2::LaunchTemplate
    Properties:
      LaunchTemplateData:
        ImageId: ami-1
        InstanceType: m5.large
        MetadataOptions: {HttpTokens: required, HttpPutResponseHopLimit: 2}
        TagSpecifications: [{ResourceType: instance, Tags: [{Key: Name, Value: worker}]}]
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: {Statement: [{Effect: Allow, Action: "sts:AssumeRole", Principal: {Service: lambda.amazonaws.com}}]}
      Policies:
      - PolicyName: p
        PolicyDocument: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "ec2:DescribeSubnets", Resource: "*"}]}
  Attach:
    Type: AWS::Lambda::Function
    Properties:
      Role: !GetAtt Role.Arn
      Runtime: provided.al2023
      Handler: bootstrap
      Timeout: 900
      Code: {S3Bucket: b, S3Key: k}
      Environment: {Variables: {SubnetIds: !Ref Subnet}}
  Retries:
    Type: AWS::Lambda::EventInvokeConfig
    Properties: {FunctionName: !Ref Attach, Qualifier: $LATEST, MaximumRetryAttempts: 1}
  Launches:
    Type: AWS::Events::Rule
    Properties:
      EventPattern: {source: [aws.autoscaling], detail: {AutoScalingGroupName: [g]}}
      Targets: [{Id: attach, Arn: !GetAtt Attach.Arn}]
  Sweep:
    Type: AWS::Events::Rule
    Properties:
      ScheduleExpression: rate(1 hour)
      Targets: [{Id: sweep, Arn: !GetAtt Attach.Arn}]
  Permission:
    Type: AWS::Lambda::Permission
    Properties: {FunctionName: !Ref Attach, Action: "lambda:InvokeFunction", Principal: events.amazonaws.com, SourceArn: !GetAtt Launches.Arn}
  Group:
    Type: AWS::AutoScaling::AutoScalingGroup
    DependsOn: [Permission, Retries]
    Properties:
      AutoScalingGroupName: g
      MinSize: 1
      MaxSize: 3
      VPCZoneIdentifier: [!Ref Subnet]
      LaunchTemplate: {LaunchTemplateId: !Ref Template, Version: !GetAtt Template.LatestVersionNumber}
      Tags: [{Key: owner, Value: g, PropagateAtLaunch: true}]
      LifecycleHookSpecificationList:
      - {LifecycleHookName: in, LifecycleTransition: "autoscaling:EC2_INSTANCE_LAUNCHING", HeartbeatTimeout: 60, DefaultResult: CONTINUE}
      - {LifecycleHookName: out, LifecycleTransition: "autoscaling:EC2_INSTANCE_TERMINATING", HeartbeatTimeout: 60}
`

// plant is what a stack of workers needs.
type plant struct {
	cloud     *vpc.Cloud
	scaling   *autoscaling.Service
	functions *lambda.Service
	engine    *Engine
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	p := &plant{cloud: vpc.New(vpc.Config{}), functions: lambda.New(lambda.Config{Account: "123456789012", Region: "us-west-2"})}
	bus := events.New(events.Config{Account: "123456789012", Region: "us-west-2"})
	p.scaling = autoscaling.New(autoscaling.Config{Cloud: p.cloud, Publish: bus.Put})
	roles := iam.New("123456789012")
	all := Network(p.cloud)
	all["AWS::IAM::Role"] = roleProvider{NewInert("us-west-2", "123456789012"), roles}
	maps.Copy(all, Scaling(p.cloud, p.scaling))
	maps.Copy(all, Reactions(p.functions, bus, roles, func(bucket, key string) (string, error) {
		if bucket != "b" || key != "k" {
			return "", errors.New("no such key")
		}
		return "/nowhere/bootstrap", nil
	}))
	p.engine = New(Config{Region: "us-west-2", AccountID: "123456789012", Providers: all})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context){p.scaling.Run, bus.Run, p.functions.Run} {
		running.Go(func() { run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return p
}

func TestAStackOfWorkersComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t)
		s, err := p.engine.Create(t.Context(), "s", parsed(t, workers), nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Second) // the function has no program, so the hook ends by itself
		g, _ := p.scaling.Group("g")
		if len(g.Instances) != 1 || g.Instances[0].State != autoscaling.InService {
			t.Fatalf("group %+v", g)
		}
		i, _ := p.cloud.View(time.Now()).Instance(g.Instances[0].ID)
		if i.Tags["owner"] != "g" || i.Tags["Name"] != "worker" || i.Metadata != (vpc.MetadataOptions{HTTPTokens: "required", HopLimit: 2}) {
			t.Errorf("instance %+v", i)
		}
		time.Sleep(2 * time.Hour)
		f, _ := s.Find("Attach")
		if got := len(p.functions.Invocations(f.Ref)); got != 2*2 { // the launch and its success, each retried once
			t.Errorf("%d invocations; the sweep is not allowed to: %s", got, p.functions.Logs(f.Ref))
		}
		if err := p.engine.Delete(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		view := p.cloud.View(time.Now())
		if n := len(p.scaling.Groups()) + len(view.VPCs()) + len(view.LaunchTemplates()) + len(view.AllENIs()); n != 0 {
			t.Errorf("%d things are left", n)
		}
		if p.functions.Invocations(f.Ref) != nil {
			t.Error("the function is left")
		}
	})
}

func TestWorkersThatTheLabDoesNotKnow(t *testing.T) {
	for change, want := range map[string]string{
		"ImageId: ami-1 -> ImageID: ami-1":                                          "LaunchTemplateData.ImageID",
		"Runtime: provided.al2023 -> Runtime: python3.12":                           "not python3.12",
		"S3Key: k -> S3Key: l":                                                      "find s3://b/l: no such key",
		"Qualifier: $LATEST -> Qualifier: live":                                     "no versions and aliases",
		"source: [aws.autoscaling] -> source: [{cidr: 10.0.0.0/8}]":                 `the filter "cidr" is not implemented`,
		"rate(1 hour) -> rate(1 hours)":                                             "is not a rate",
		"rate(1 hour) -> cron(0 * * * ? *)":                                         "is not a rate",
		"Arn: !GetAtt Attach.Arn -> Arn: arn:aws:sqs:us-west-2:1:q":                 "targets are functions",
		"lambda:InvokeFunction -> lambda:GetFunction":                               "does not know lambda:GetFunction",
		"Principal: events.amazonaws.com -> Principal: s3.amazonaws.com":            "does not know s3.amazonaws.com",
		"Service: lambda.amazonaws.com -> Service: ec2.amazonaws.com":               "cannot be assumed by lambda.amazonaws.com",
		"Effect: Allow, Action: \"ec2: -> Effect: Maybe, Action: \"ec2:":            "Statement[0].Effect: must be Allow or Deny",
		"MinSize: 1 -> MinSize: 9":                                                  "ValidationError",
		"HeartbeatTimeout: 60, DefaultResult -> HeartbeatTimeout: 1, DefaultResult": "between 30 and 7200",
		"ResourceType: instance -> ResourceType: spot":                              "does not know spot",
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlant(t)
				old, replacement, _ := strings.Cut(change, " -> ")
				template := strings.Replace(workers, old, replacement, 1)
				if template == workers {
					t.Fatalf("the template has no %q", old)
				}
				_, err := p.engine.Create(t.Context(), "s", parsed(t, template), nil)
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v", err)
				}
				if diff := cmp.Diff(0, len(p.cloud.View(time.Now()).VPCs())); diff != "" {
					t.Error("the rollback left the VPC")
				}
			})
		})
	}
}

func parsed(t *testing.T, text string) *Template {
	t.Helper()
	out, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
