// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"cmp"
	"fmt"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

type metadataOptions struct {
	HTTPTokens   string `ec2:"HttpTokens"`
	HTTPEndpoint string `ec2:"HttpEndpoint"`
	HopLimit     int    `ec2:"HttpPutResponseHopLimit"`
}

// templateData is RequestLaunchTemplateData.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RequestLaunchTemplateData.html
type templateData struct {
	ImageID         string   `ec2:"ImageId"`
	InstanceType    string   `ec2:"InstanceType"`
	KeyName         string   `ec2:"KeyName"`
	UserData        string   `ec2:"UserData"`
	Groups          []string `ec2:"SecurityGroupId"`
	InstanceProfile struct {
		ARN  string `ec2:"Arn"`
		Name string `ec2:"Name"`
	} `ec2:"IamInstanceProfile"`
	Interfaces []interfaceSpecification `ec2:"NetworkInterface"`
	Tags       []tagSpecification       `ec2:"TagSpecification"`
	Metadata   metadataOptions          `ec2:"MetadataOptions"`
}

func (d templateData) data() (out vpc.LaunchTemplateData, err error) {
	tags, err := tagsFor(d.Tags, "instance", "network-interface", "volume")
	if err != nil {
		return out, err
	}
	out = vpc.LaunchTemplateData{
		ImageID: d.ImageID, InstanceType: d.InstanceType, KeyName: d.KeyName, UserData: d.UserData, Groups: d.Groups,
		InstanceProfile: cmp.Or(d.InstanceProfile.ARN, d.InstanceProfile.Name),
		Tags:            tags["instance"], InterfaceTags: tags["network-interface"], VolumeTags: tags["volume"],
		Metadata: vpc.MetadataOptions(d.Metadata),
	}
	for _, s := range d.Interfaces {
		spec, err := s.spec()
		if err != nil {
			return out, err
		}
		out.Interfaces = append(out.Interfaces, spec)
	}
	return out, nil
}

type createLaunchTemplateRequest struct {
	Name        string             `ec2:"LaunchTemplateName,required"`
	Data        templateData       `ec2:"LaunchTemplateData,required"`
	Tags        []tagSpecification `ec2:"TagSpecification"`
	ClientToken string             `ec2:"ClientToken"`
	DryRun      bool               `ec2:"DryRun"`
}

type launchTemplateXML struct {
	ID        string      `xml:"launchTemplateId"`
	Name      string      `xml:"launchTemplateName"`
	CreatedAt string      `xml:"createTime"`
	CreatedBy string      `xml:"createdBy"`
	Default   int         `xml:"defaultVersionNumber"`
	Latest    int         `xml:"latestVersionNumber"`
	Tags      set[tagXML] `xml:"tagSet"`
}

func (c *call) launchTemplateOf(t vpc.LaunchTemplate) launchTemplateXML {
	return launchTemplateXML{
		ID: t.ID, Name: t.Name, CreatedAt: timestamp(t.CreatedAt), CreatedBy: fmt.Sprintf("arn:aws:iam::%s:root", c.cloud.AccountID()),
		Default: t.Default, Latest: t.Latest(), Tags: tagSet(t.Tags),
	}
}

// launchTemplateResponse is the answer of the calls about one template.
type launchTemplateResponse struct {
	reply
	Template launchTemplateXML `xml:"launchTemplate"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateLaunchTemplate.html
func createLaunchTemplate(c *call, in createLaunchTemplateRequest) (*launchTemplateResponse, error) {
	tags, err := tagsFor(in.Tags, "launch-template")
	if err != nil {
		return nil, err
	}
	data, err := in.Data.data()
	if err != nil {
		return nil, err
	}
	t, err := c.cloud.CreateLaunchTemplate(c.now, vpc.CreateLaunchTemplateInput{
		Name: in.Name, Data: data, Tags: tags["launch-template"], ClientToken: in.ClientToken,
	})
	if err != nil {
		return nil, err
	}
	return &launchTemplateResponse{Template: c.launchTemplateOf(t)}, nil
}

// templateName names a template in one of two ways.
type templateName struct {
	ID   string `ec2:"LaunchTemplateId"`
	Name string `ec2:"LaunchTemplateName"`
}

// find returns the template, as of now: calls that change it do not wait for what Describe calls show.
func (n templateName) find(c *call) (vpc.LaunchTemplate, error) {
	if (n.ID == "") == (n.Name == "") {
		// unverified: the wording.
		return vpc.LaunchTemplate{}, vpc.Errorf("MissingParameter", "Either the launch template ID or name must be specified, and not both")
	}
	return c.cloud.View(c.now).LaunchTemplate(cmp.Or(n.ID, n.Name))
}

type deleteLaunchTemplateRequest struct {
	templateName
	DryRun bool `ec2:"DryRun"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteLaunchTemplate.html
func deleteLaunchTemplate(c *call, in deleteLaunchTemplateRequest) (*launchTemplateResponse, error) {
	t, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if t, err = c.cloud.DeleteLaunchTemplate(c.now, t.ID); err != nil {
		return nil, err
	}
	return &launchTemplateResponse{Template: c.launchTemplateOf(t)}, nil
}

type describeLaunchTemplatesRequest struct {
	IDs     []string `ec2:"LaunchTemplateId"`
	Names   []string `ec2:"LaunchTemplateName"`
	Filters []filter `ec2:"Filter"`
	DryRun  bool     `ec2:"DryRun"`
	paging
}

type describeLaunchTemplatesResponse struct {
	reply
	Templates set[launchTemplateXML] `xml:"launchTemplates"`
	NextToken string                 `xml:"nextToken,omitempty"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeLaunchTemplates.html
func describeLaunchTemplates(c *call, in describeLaunchTemplatesRequest) (*describeLaunchTemplatesResponse, error) {
	id := func(t vpc.LaunchTemplate) string { return t.ID }
	list, err := named(c.view().LaunchTemplates(), in.IDs, id, notFound("InvalidLaunchTemplateId.NotFound", "launch template"))
	if err != nil {
		return nil, err
	}
	name := func(t vpc.LaunchTemplate) string { return t.Name }
	list, err = named(list, in.Names, name, notFound("InvalidLaunchTemplateName.NotFoundException", "launch template"))
	if err != nil {
		return nil, err
	}
	list, err = filters[vpc.LaunchTemplate]{
		tags: func(t vpc.LaunchTemplate) map[string]string { return t.Tags },
		fields: map[string]func(vpc.LaunchTemplate) []string{
			"launch-template-name": func(t vpc.LaunchTemplate) []string { return one(t.Name) },
		},
	}.choose(list, in.Filters)
	if err != nil {
		return nil, err
	}
	list, next, err := cut(in.paging, pageSize{1, 200, 200}, list, id)
	if err != nil {
		return nil, err
	}
	return &describeLaunchTemplatesResponse{NextToken: next, Templates: setOf(list, c.launchTemplateOf)}, nil
}
