// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package iam

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/asgapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/ec2api"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// GuardEC2 stands before the EC2 API: what the caller's role does not allow is UnauthorizedOperation.
func (s *Service) GuardEC2(cloud *vpc.Cloud, now func() time.Time, api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err == nil { // a bad form is the API's to refuse
			q := question{view: cloud.View(now().Add(-cloud.Lags().Describe)), cloud: cloud, form: r.Form, action: r.Form.Get("Action")}
			if err := s.Judge(ec2api.Caller(r), q.ec2()); err != nil {
				ec2api.WriteError(w, &vpc.APIError{
					Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation. " + err.Error(), Status: http.StatusForbidden,
				})
				return
			}
		}
		api.ServeHTTP(w, r)
	})
}

// GuardAutoScaling stands before the Auto Scaling API: what the caller's role does not allow is AccessDenied.
func (s *Service) GuardAutoScaling(groups *autoscaling.Service, api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err == nil { // as above
			q := Request{Action: "autoscaling:" + r.Form.Get("Action"), Resource: "*"}
			if g, ok := groups.Group(r.Form.Get("AutoScalingGroupName")); ok && !strings.HasPrefix(r.Form.Get("Action"), "Describe") {
				q.Resource = g.ARN
			}
			if err := s.Judge(ec2api.Caller(r), []Request{q}); err != nil {
				asgapi.WriteError(w, "AccessDenied", err.Error(), "00000000-0000-4000-8000-000000000000")
				return
			}
		}
		api.ServeHTTP(w, r)
	})
}

// question is a call of EC2 with what it is about.
type question struct {
	view   vpc.View
	cloud  *vpc.Cloud
	form   url.Values
	action string
}

func (q question) arn(kind, id string) string {
	return "arn:aws:ec2:" + q.cloud.Region() + ":" + q.cloud.AccountID() + ":" + kind + "/" + id
}

// ask is one request of the call's action.
func (q question) ask(kind, id string, keys map[string]string) Request {
	return Request{Action: "ec2:" + q.action, Resource: q.arn(kind, id), Keys: keys}
}

// ec2 lists what the policies are asked. The resource types of each action, and the condition keys of each type:
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
//
// What does not exist, or not yet, has no tags: a policy that asks for them does not allow the call, and the caller never learns that
// there is nothing (seen of DetachNetworkInterface: https://github.com/hashicorp/terraform-provider-aws/pull/46211).
// unverified: that it is the same for an ENI that is not known yet.
func (q question) ec2() []Request {
	switch q.action {
	case "CreateNetworkInterface":
		return q.create()
	case "AttachNetworkInterface":
		return slices.Concat(q.eni(q.form.Get("NetworkInterfaceId")), q.instance(q.form.Get("InstanceId")))
	case "DetachNetworkInterface":
		for _, e := range q.view.AllENIs() {
			if e.Attachment != nil && e.Attachment.ID == q.form.Get("AttachmentId") {
				return slices.Concat(q.eni(e.ID), q.instance(e.Attachment.InstanceID))
			}
		}
		return []Request{q.ask("network-interface", "*", nil)}
	case "ModifyNetworkInterfaceAttribute":
		id := q.form.Get("NetworkInterfaceId")
		out := q.eni(id)
		if e, ok := q.view.ENI(id); ok && e.Attachment != nil && q.form.Has("Attachment.AttachmentId") {
			out = append(out, q.instance(e.Attachment.InstanceID)...)
		}
		for _, g := range q.list("SecurityGroupId") {
			out = append(out, q.group(g)...)
		}
		return out
	case "DeleteNetworkInterface", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses", "AssignIpv6Addresses", "UnassignIpv6Addresses":
		return q.eni(q.form.Get("NetworkInterfaceId"))
	}
	// Describe actions know no resources. Of the others the lab does not know which they are about: "*" allows them.
	return []Request{{Action: "ec2:" + q.action, Resource: "*"}}
}

// list reads Name.1, Name.2, ….
func (q question) list(name string) (out []string) {
	for k := range q.form {
		if strings.HasPrefix(k, name+".") {
			out = append(out, q.form.Get(k))
		}
	}
	slices.Sort(out)
	return out
}

// create asks for the subnet, each security group, the ENI to be, and its tags.
func (q question) create() []Request {
	subnet, ok := q.view.Subnet(q.form.Get("SubnetId"))
	if !ok {
		return nil
	}
	in := map[string]string{"ec2:Vpc": q.arn("vpc", subnet.VPCID), "ec2:AvailabilityZone": subnet.AZ, "ec2:SubnetID": subnet.ID}
	out := []Request{q.ask("subnet", subnet.ID, tagged(in, "aws:ResourceTag/", subnet.Tags))}
	groups := q.list("SecurityGroupId")
	if len(groups) == 0 { // EC2 takes the VPC's default group
		for _, g := range q.view.SecurityGroups() {
			if g.VPCID == subnet.VPCID && g.Name == "default" {
				groups = append(groups, g.ID)
			}
		}
	}
	for _, g := range groups {
		out = append(out, q.group(g)...)
	}
	tags := q.requestTags("network-interface")
	keys := map[string]string{"ec2:Vpc": q.arn("vpc", subnet.VPCID), "ec2:Subnet": q.arn("subnet", subnet.ID)}
	out = append(out, q.ask("network-interface", "*", tagged(keys, "aws:RequestTag/", tags)))
	if len(tags) > 0 {
		// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
		out = append(out, Request{
			Action: "ec2:CreateTags", Resource: q.arn("network-interface", "*"),
			Keys: tagged(map[string]string{"ec2:CreateAction": q.action}, "aws:RequestTag/", tags),
		})
	}
	return out
}

// requestTags are those of TagSpecification.N.Tag.M for a type of resource.
func (q question) requestTags(kind string) map[string]string {
	tags := map[string]string{}
	for k := range q.form {
		spec, ok := strings.CutSuffix(k, ".Key")
		outer, _, isTag := strings.Cut(spec, ".Tag.")
		if ok && isTag && q.form.Get(outer+".ResourceType") == kind {
			tags[q.form.Get(k)] = q.form.Get(spec + ".Value")
		}
	}
	return tags
}

func (q question) eni(id string) []Request {
	e, ok := q.view.ENI(id)
	if !ok {
		return []Request{q.ask("network-interface", id, nil)}
	}
	keys := map[string]string{
		"ec2:Vpc": q.arn("vpc", e.VPCID), "ec2:Subnet": q.arn("subnet", e.SubnetID), "ec2:AvailabilityZone": e.AZ, "ec2:NetworkInterfaceID": id,
	}
	return []Request{q.ask("network-interface", id, tagged(keys, "aws:ResourceTag/", e.Tags))}
}

func (q question) instance(id string) []Request {
	i, ok := q.view.Instance(id)
	if !ok {
		return []Request{q.ask("instance", id, nil)}
	}
	keys := map[string]string{"ec2:InstanceID": id, "ec2:InstanceType": i.Type, "ec2:AvailabilityZone": i.AZ}
	return []Request{q.ask("instance", id, tagged(keys, "aws:ResourceTag/", i.Tags))}
}

func (q question) group(id string) []Request {
	for _, g := range q.view.SecurityGroups() {
		if g.ID == id {
			keys := map[string]string{"ec2:Vpc": q.arn("vpc", g.VPCID), "ec2:SecurityGroupID": id}
			return []Request{q.ask("security-group", id, tagged(keys, "aws:ResourceTag/", g.Tags))}
		}
	}
	return nil
}

// tagged adds tags to keys under a prefix.
func tagged(keys map[string]string, prefix string, tags map[string]string) map[string]string {
	for k, v := range tags {
		keys[prefix+k] = v
	}
	return keys
}
