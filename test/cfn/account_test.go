// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfn

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/asghooks"
	"github.com/multus-vpc/multus-vpc/internal/drain"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
	"github.com/multus-vpc/multus-vpc/internal/workerhook"
)

// account is a lab that our stacks are deployed into, with the function's flows in this process.
type account struct {
	t      *testing.T
	lab    *scenario.Lab
	inert  *cloudformation.Inert
	engine *cloudformation.Engine

	providers map[string]cloudformation.Provider // of the engine

	log *journal // of the functions
}

// journal is a log that may be read while it is written.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// lines are those with the words.
func (j *journal) lines(words string) (out []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.text.String()) {
		if strings.Contains(line, words) {
			out = append(out, line)
		}
	}
	return out
}

const image = "/aws/service/eks/optimized-ami/1.33/amazon-linux-2023/x86_64/standard/recommended/image_id"

func newAccount(t *testing.T) *account {
	t.Helper()
	s, err := scenario.Parse([]byte("vpc: {cidr: 10.99.0.0/16}\nsubnets: [{name: other, cidr: 10.99.1.0/24, az: us-west-2a}]\n" +
		"ec2: {latency: 80ms, boot: 20s, propagation: {route: 1s, imds: 2s, describe: 2s}}"))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &account{t: t, lab: lab, log: &journal{}, inert: cloudformation.NewInert(lab.Cloud.Region(), lab.Cloud.AccountID())}
	providers := cloudformation.Services{
		Cloud: lab.Cloud, Scaling: lab.Scaling, Events: lab.Events, Functions: lab.Functions, Inert: a.inert, Roles: lab.Roles,
	}.Providers()
	providers["AWS::Lambda::Function"] = inProcess{a}
	a.providers = providers
	a.engine = cloudformation.New(cloudformation.Config{
		Region: lab.Cloud.Region(), AccountID: lab.Cloud.AccountID(), Zones: []string{"us-west-2a", "us-west-2b"},
		Parameters: func(name string) (string, bool) { return "ami-0123456789abcdef0", name == image }, Providers: providers,
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lab.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return a
}

// inProcess makes functions that run the flows with the template's environment.
type inProcess struct{ *account }

func (p inProcess) Create(_ context.Context, r cloudformation.Request) (cloudformation.Physical, error) {
	in := r.Properties
	in.Ignore("Architectures", "Code", "Description", "Handler", "LoggingConfig", "MemorySize", "Runtime", "VpcConfig")
	if err := p.lab.Roles.Assume("lambda.amazonaws.com", "AKLAMBDA", in.Required("Role")); err != nil {
		return cloudformation.Physical{}, err
	}
	env, _ := in.Object("Environment").Raw("Variables").(map[string]any)
	lookup := func(name string) string {
		v, _ := env[name].(string)
		return v
	}
	cfg, err := workereni.Parse(lookup)
	if err == nil {
		_, err = drain.Parse(lookup)
	}
	if err != nil {
		return cloudformation.Physical{}, fmt.Errorf("the template's environment: %w", err)
	}
	name := r.Stack + "-" + r.LogicalID
	err = p.lab.Functions.Create(lambda.Function{
		Name: name, Timeout: time.Duration(in.Int("Timeout", 3)) * time.Second, Handler: p.handler(cfg, env["AnswerHooks"] != "false"),
	})
	return cloudformation.Physical{Ref: name, Attributes: map[string]string{"Arn": p.lab.Functions.ARN(name)}}, err
}

// handler is the function's, but for reading its environment.
func (p inProcess) handler(cfg workereni.Config, answers bool) func(context.Context, []byte) ([]byte, error) {
	sdk := func(transport http.RoundTripper) aws.Config {
		return aws.Config{
			Region: p.lab.Cloud.Region(), Credentials: credentials.NewStaticCredentialsProvider("AKLAMBDA", "secret", ""),
			HTTPClient: &http.Client{Transport: transport},
		}
	}
	log := slog.New(slog.NewJSONHandler(io.MultiWriter(p.log, p.t.Output()), nil))
	c := workerhook.Config{Workers: workereni.New(cfg, ec2eni.New(ec2eni.Config{SDK: sdk(p.lab.EC2())}), log), Log: log}
	if answers {
		c.Hooks = asghooks.New(sdk(p.lab.AutoScaling()))
	}
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		event, err := lifecycle.Parse(payload)
		if err != nil {
			return nil, err
		}
		return nil, workerhook.New(c).Handle(ctx, event)
	}
}

func (p inProcess) Delete(_ context.Context, _ cloudformation.Request, f cloudformation.Physical) error {
	return p.lab.Functions.Delete(f.Ref)
}
