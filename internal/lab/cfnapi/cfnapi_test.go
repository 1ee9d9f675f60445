// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfnapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
)

// thing is a resource that takes until it is let go, and fails when told to.
type thing struct {
	hold chan struct{} // nil does not hold

	mu                     sync.Mutex
	failCreate, failDelete error
}

func (p *thing) Create(ctx context.Context, r cloudformation.Request) (cloudformation.Physical, error) {
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-ctx.Done():
			return cloudformation.Physical{}, ctx.Err()
		}
	}
	r.Properties.Ignore("Name")
	p.mu.Lock()
	defer p.mu.Unlock()
	return cloudformation.Physical{Ref: "thing-" + r.LogicalID}, p.failCreate
}

func (p *thing) Delete(context.Context, cloudformation.Request, cloudformation.Physical) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failDelete
}

func (p *thing) fail(create, remove error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failCreate, p.failDelete = create, remove
}

const version = "AWSTemplateFormatVersion: \"2010-09-09\"\n"

const template = version + `
Parameters: {P: {Type: String}, Q: {Type: String, Default: q}}
Resources: {A: {Type: Test::Thing, Properties: {Name: !Ref P}}}
Outputs: {O: {Value: !Sub "${A}-${P}-${Q}", Description: what it is}}
`

// api is the service with the one type of thing; work runs until it is done when hold is nil.
type api struct {
	t       *testing.T
	service *Service
	thing   *thing
	work    sync.WaitGroup
}

func newAPI(t *testing.T) *api {
	a := &api{t: t, thing: &thing{}}
	cfg := cloudformation.Config{
		Region: "us-west-2", AccountID: "1", Providers: map[string]cloudformation.Provider{"Test::Thing": a.thing},
		Observe: func(e cloudformation.Event) { a.service.Observe(e) },
	}
	a.service = New(Config{Engine: cloudformation.New(cfg), StackID: cfg.StackID, Go: func(work func(context.Context)) {
		a.work.Go(func() { work(t.Context()) })
	}})
	return a
}

// call makes a request of pairs of names and values, and returns status and body.
func (a *api) call(action string, pairs ...string) (int, string) {
	a.t.Helper()
	form := url.Values{"Action": {action}, "Version": {Version}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	a.service.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return w.Code, string(body)
}

// ok makes a call that must succeed, waits for the work it began unless something is held, and returns the body.
func (a *api) ok(action string, pairs ...string) string {
	a.t.Helper()
	status, body := a.call(action, pairs...)
	if status != http.StatusOK {
		a.t.Fatalf("%s: status %d: %s", action, status, body)
	}
	if a.thing.hold == nil {
		a.work.Wait()
	}
	return body
}

// refused makes a call that must be refused so.
func (a *api) refused(want, action string, pairs ...string) {
	a.t.Helper()
	status, body := a.call(action, pairs...)
	if status < 400 || !strings.Contains(body, want) {
		a.t.Errorf("%s: status %d: %s, want %q", action, status, body, want)
	}
}

// all are the contents of an element, in order.
func all(body, element string) (out []string) {
	for _, m := range regexp.MustCompile("<"+element+">([^<]*)</"+element+">").FindAllStringSubmatch(body, -1) {
		out = append(out, m[1])
	}
	return out
}

var given = []string{"StackName", "s", "TemplateBody", template, "Parameters.member.1.ParameterKey", "P", "Parameters.member.1.ParameterValue", "p"}

func TestAStackIsMadeDescribedAndDeleted(t *testing.T) {
	a := newAPI(t)
	a.thing.hold = make(chan struct{})
	a.ok("CreateStack", given...)
	if diff := cmp.Diff([]string{"CREATE_IN_PROGRESS"}, all(a.ok("DescribeStacks", "StackName", "s"), "StackStatus")); diff != "" {
		t.Error(diff)
	}
	a.refused("already exists", "CreateStack", given...)
	a.refused("is being created", "DeleteStack", "StackName", "s")
	close(a.thing.hold)
	a.work.Wait()
	a.thing.hold = nil
	body := a.ok("DescribeStacks")
	for element, want := range map[string][]string{
		"StackStatus": {"CREATE_COMPLETE"}, "OutputValue": {"thing-A-p-q"}, "ParameterValue": {"p", "q"}, "Description": {"what it is"},
	} {
		if diff := cmp.Diff(want, all(body, element)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", element, diff)
		}
	}
	if diff := cmp.Diff([]string{"thing-A"}, all(a.ok("DescribeStackResources", "StackName", "s"), "PhysicalResourceId")); diff != "" {
		t.Error(diff)
	}
	a.ok("DeleteStack", "StackName", "s")
	a.refused("Stack with id s does not exist", "DescribeStacks", "StackName", "s")
	history := all(a.ok("DescribeStackEvents", "StackName", "arn:aws:cloudformation:us-west-2:1:stack/s/lab"), "ResourceStatus")
	want := []string{
		"DELETE_COMPLETE", "DELETE_COMPLETE", "DELETE_IN_PROGRESS", "DELETE_IN_PROGRESS",
		"CREATE_COMPLETE", "CREATE_COMPLETE", "CREATE_IN_PROGRESS", "CREATE_IN_PROGRESS",
	}
	if diff := cmp.Diff(want, history); diff != "" {
		t.Errorf("events, the newest first (-want +got):\n%s", diff)
	}
}

func TestAStackThatFailsSaysWhy(t *testing.T) {
	a := newAPI(t)
	a.thing.fail(errors.New("no more things"), nil)
	a.ok("CreateStack", given...)
	body := a.ok("DescribeStacks", "StackName", "s")
	if diff := cmp.Diff([]string{"ROLLBACK_COMPLETE"}, all(body, "StackStatus")); diff != "" || !strings.Contains(body, "no more things") {
		t.Errorf("%s, %s", diff, body)
	}
	a.refused("already exists", "CreateStack", given...) // it has to be deleted first, as on AWS
	a.ok("DeleteStack", "StackName", "s")

	a.thing.fail(nil, errors.New("in use"))
	a.ok("CreateStack", given...)
	a.ok("DeleteStack", "StackName", "s")
	if diff := cmp.Diff([]string{"DELETE_FAILED"}, all(a.ok("DescribeStacks", "StackName", "s"), "StackStatus")); diff != "" {
		t.Error(diff)
	}
	a.thing.fail(nil, nil)
	a.ok("DeleteStack", "StackName", "s")
	a.ok("DeleteStack", "StackName", "s")
}

func TestAChangeSetIsLookedAtAndThenMade(t *testing.T) {
	a := newAPI(t)
	with := func(more ...string) []string { return append(more, given...) }
	a.refused("does not change stacks", "CreateChangeSet", with("ChangeSetName", "c", "ChangeSetType", "UPDATE")...)
	a.ok("CreateChangeSet", with("ChangeSetName", "c", "ChangeSetType", "CREATE")...)
	a.refused("ChangeSet c already exists", "CreateChangeSet", with("ChangeSetName", "c", "ChangeSetType", "CREATE")...)
	body := a.ok("DescribeChangeSet", "ChangeSetName", "c", "StackName", "s")
	if diff := cmp.Diff([]string{"A"}, all(body, "LogicalResourceId")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"REVIEW_IN_PROGRESS"}, all(a.ok("DescribeStacks", "StackName", "s"), "StackStatus")); diff != "" {
		t.Error(diff)
	}
	a.refused("ChangeSetNotFound", "ExecuteChangeSet", "ChangeSetName", "d", "StackName", "s")
	a.ok("ExecuteChangeSet", "ChangeSetName", "c", "StackName", "s")
	if diff := cmp.Diff([]string{"CREATE_COMPLETE"}, all(a.ok("DescribeStacks", "StackName", "s"), "StackStatus")); diff != "" {
		t.Error(diff)
	}
	a.refused("InvalidChangeSetStatus", "ExecuteChangeSet", "ChangeSetName", "c", "StackName", "s")
	if diff := cmp.Diff([]string{"P", "Q"}, all(a.ok("GetTemplateSummary", "StackName", "s"), "ParameterKey")); diff != "" {
		t.Error(diff)
	}
}

func TestRequestsAreReadStrictly(t *testing.T) {
	a := newAPI(t)
	for want, pairs := range map[string][]string{
		"The parameter OnFailure is not recognized":               append([]string{"OnFailure", "DELETE"}, given...),
		"Member must not be null":                                 {"StackName", "s"},
		"Template format error":                                   {"StackName", "s", "TemplateBody", "Resources: ["},
		"Member must satisfy regular expression pattern":          {"StackName", "1s", "TemplateBody", template},
		"Parameters.P: has no default: it must be given":          {"StackName", "s", "TemplateBody", template},
		"the lab does not make AWS::S3::Bucket":                   {"StackName", "s", "TemplateBody", version + "Resources: {B: {Type: AWS::S3::Bucket}}"},
		"Requires capabilities : [CAPABILITY_IAM]":                {"StackName", "s", "TemplateBody", version + "Resources: {B: {Type: AWS::IAM::Role}}"},
		"Member must have length less than or equal to 51200":     {"StackName", "s", "TemplateBody", template + strings.Repeat("#", 51200)},
		"Could not find operation ValidateTemplate for version 2": nil,
	} {
		action := "CreateStack"
		if pairs == nil {
			action = "ValidateTemplate"
		}
		a.refused(want, action, pairs...)
	}
	if got := a.ok("DescribeStacks"); len(all(got, "StackName")) != 0 {
		t.Errorf("a refused call left a stack: %s", got)
	}
}
