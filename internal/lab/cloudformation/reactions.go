// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/iam"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
)

// Reactions returns the providers of functions and of the rules that invoke them. Code finds the program of a function
// by the bucket and the key of its package: the lab has no S3. A function calls with the permissions of its role.
func Reactions(
	functions *lambda.Service, bus *events.Bus, roles *iam.Service, code func(bucket, key string) (program string, err error),
) map[string]Provider {
	return map[string]Provider{
		"AWS::Lambda::Function":          functionProvider{functions, roles, code},
		"AWS::Lambda::EventInvokeConfig": retryProvider{functions},
		"AWS::Lambda::Permission":        permissionProvider{functions},
		"AWS::Events::Rule":              ruleProvider{functions, bus},
	}
}

type functionProvider struct {
	functions *lambda.Service
	roles     *iam.Service
	code      func(bucket, key string) (string, error)
}

func (p functionProvider) Create(_ context.Context, r Request) (Physical, error) {
	in := r.Properties
	in.Ignore("Description", "Architectures", "LoggingConfig", "Tags", "VpcConfig") // programs reach all of the lab
	f := lambda.Function{
		Name: in.String("FunctionName"), Timeout: time.Duration(in.Int("Timeout", 0)) * time.Second,
		MemoryMB: in.Int("MemorySize", 0), Concurrency: in.Int("ReservedConcurrentExecutions", 0), Environment: map[string]string{},
	}
	if f.Name == "" {
		f.Name = madeUp(r)
	}
	if runtime := in.Required("Runtime"); !strings.HasPrefix(runtime, "provided.") {
		in.addf("Runtime", "the lab runs programs of their own, provided.al2023, not %s", runtime)
	}
	in.Required("Handler")
	role := in.Required("Role")
	variables, _ := in.Object("Environment").Raw("Variables").(map[string]any)
	for k, v := range variables {
		if !isScalar(v) {
			in.addf("Environment.Variables."+k, "must be a string")
			continue
		}
		f.Environment[k] = text(v)
	}
	from := in.Object("Code")
	bucket, key := from.Required("S3Bucket"), from.Required("S3Key")
	if err := in.Err(); err != nil {
		return Physical{}, err
	}
	var err error
	if f.Program, err = p.code(bucket, key); err != nil {
		return Physical{}, fmt.Errorf("find s3://%s/%s: %w", bucket, key, err)
	}
	// The lab's functions have their name as access key ID.
	if err = p.roles.Assume("lambda.amazonaws.com", f.Name, role); err != nil {
		return Physical{}, err
	}
	return Physical{Ref: f.Name, Attributes: map[string]string{"Arn": p.functions.ARN(f.Name)}}, p.functions.Create(f)
}

func (p functionProvider) Delete(_ context.Context, _ Request, f Physical) error {
	_ = p.functions.Delete(f.Ref) // its only error is that the function is gone
	return nil
}

// retryProvider sets how a function's events are retried.
type retryProvider struct{ functions *lambda.Service }

func (p retryProvider) Create(_ context.Context, r Request) (Physical, error) {
	in := r.Properties
	in.Ignore("DestinationConfig")
	name, qualifier := in.Required("FunctionName"), in.Required("Qualifier")
	retries, age := in.Int("MaximumRetryAttempts", 2), time.Duration(in.Int("MaximumEventAgeInSeconds", 21600))*time.Second
	if qualifier != "" && qualifier != "$LATEST" {
		in.addf("Qualifier", "the lab has no versions and aliases but $LATEST")
	}
	if err := in.Err(); err != nil {
		return Physical{}, err
	}
	return Physical{Ref: name + "|" + qualifier}, p.functions.Configure(name, retries, age)
}

func (p retryProvider) Delete(context.Context, Request, Physical) error { return nil } // it goes with its function

// permissionProvider lets a rule invoke a function.
type permissionProvider struct{ functions *lambda.Service }

func (p permissionProvider) Create(_ context.Context, r Request) (Physical, error) {
	in := r.Properties
	name, source := in.Required("FunctionName"), in.Required("SourceArn")
	if action := in.Required("Action"); action != "lambda:InvokeFunction" {
		in.addf("Action", "the lab does not know %s", action)
	}
	if principal := in.Required("Principal"); !strings.HasPrefix(principal, "events.") {
		in.addf("Principal", "the lab does not know %s", principal)
	}
	if err := in.Err(); err != nil {
		return Physical{}, err
	}
	return Physical{Ref: madeUp(r)}, p.functions.Allow(name, source)
}

func (p permissionProvider) Delete(context.Context, Request, Physical) error { return nil } // as above

type ruleProvider struct {
	functions *lambda.Service
	bus       *events.Bus
}

func (p ruleProvider) Create(_ context.Context, r Request) (Physical, error) {
	in := r.Properties
	in.Ignore("Description")
	rule := events.Rule{Name: in.String("Name"), Disabled: in.String("State") == "DISABLED"}
	if rule.Name == "" {
		rule.Name = madeUp(r)
	}
	arn := p.bus.RuleARN(rule.Name)
	if document := in.Raw("EventPattern"); document != nil {
		pattern, err := readPattern(document)
		if err != nil {
			in.addf("EventPattern", "%v", err)
		}
		rule.Pattern = &pattern
	}
	if schedule := in.String("ScheduleExpression"); schedule != "" {
		var err error
		if rule.Every, err = readRate(schedule); err != nil {
			in.addf("ScheduleExpression", "%v", err)
		}
	}
	for _, t := range in.Objects("Targets") {
		t.Required("Id")
		name, ok := strings.CutPrefix(t.Required("Arn"), p.functions.ARN(""))
		if !ok {
			t.addf("Arn", "the lab's targets are functions")
		}
		t.Ignore("RetryPolicy", "DeadLetterConfig")
		rule.Targets = append(rule.Targets, p.functions.TargetOf(name, arn))
	}
	if err := in.Err(); err != nil {
		return Physical{}, err
	}
	return Physical{Ref: rule.Name, Attributes: map[string]string{"Arn": arn}}, p.bus.PutRule(rule)
}

func (p ruleProvider) Delete(_ context.Context, _ Request, r Physical) error {
	p.bus.DeleteRule(r.Ref)
	return nil
}

func readPattern(document any) (events.Pattern, error) {
	text, err := json.Marshal(document)
	if err != nil {
		return events.Pattern{}, err
	}
	return events.ParsePattern(text)
}

// readRate reads rate(5 minutes).
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html
func readRate(text string) (time.Duration, error) {
	inner, ok := strings.CutPrefix(text, "rate(")
	number, unit, _ := strings.Cut(strings.TrimSuffix(inner, ")"), " ")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || !strings.HasSuffix(text, ")") {
		return 0, fmt.Errorf("%q is not a rate such as rate(1 hour)", text)
	}
	one, ok := map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}[strings.TrimSuffix(unit, "s")]
	if !ok || (n == 1) != !strings.HasSuffix(unit, "s") { // the unit of 1 is singular, of all others plural
		return 0, fmt.Errorf("%q is not a rate such as rate(1 hour) or rate(5 minutes)", text)
	}
	return time.Duration(n) * one, nil
}
