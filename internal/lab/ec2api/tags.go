// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"maps"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

type tagXML struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

func tagSet(tags map[string]string) set[tagXML] {
	return setOf(slices.Sorted(maps.Keys(tags)), func(k string) tagXML { return tagXML{k, tags[k]} })
}

type tag struct {
	Key   string `ec2:"Key,required"`
	Value string `ec2:"Value"`
}

// tagSpecification are the tags for one kind of what a call creates.
type tagSpecification struct {
	ResourceType string `ec2:"ResourceType,required"`
	Tags         []tag  `ec2:"Tag"`
}

// tagsFor sorts tag specifications by resource type and refuses types that the call does not create.
// unverified: the wordings.
func tagsFor(specs []tagSpecification, types ...string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for _, s := range specs {
		if !slices.Contains(types, s.ResourceType) {
			return nil, vpc.InvalidValue("'%s' is not a valid taggable resource type for this operation.", s.ResourceType)
		}
		if out[s.ResourceType] == nil {
			out[s.ResourceType] = map[string]string{}
		}
		for _, t := range s.Tags {
			if _, twice := out[s.ResourceType][t.Key]; twice {
				return nil, vpc.InvalidValue("Duplicate tag key '%s' specified.", t.Key)
			}
			out[s.ResourceType][t.Key] = t.Value
		}
		if err := vpc.CheckTags(out[s.ResourceType]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

type createTagsRequest struct {
	Resources []string `ec2:"ResourceId,required"`
	Tags      []tag    `ec2:"Tag,required"`
	DryRun    bool     `ec2:"DryRun"`
}

func createTags(c *call, in createTagsRequest) (*done, error) {
	tags := map[string]string{}
	for _, t := range in.Tags {
		tags[t.Key] = t.Value
	}
	return ok(), c.cloud.CreateTags(c.now, in.Resources, tags)
}

type deleteTagsRequest struct {
	Resources []string `ec2:"ResourceId,required"`
	Tags      []struct {
		Key   string  `ec2:"Key,required"`
		Value *string `ec2:"Value"`
	} `ec2:"Tag"`
	DryRun bool `ec2:"DryRun"`
}

func deleteTags(c *call, in deleteTagsRequest) (*done, error) {
	var tags []vpc.TagSelector
	for _, t := range in.Tags {
		tags = append(tags, vpc.TagSelector(t))
	}
	return ok(), c.cloud.DeleteTags(c.now, in.Resources, tags)
}

type describeTagsRequest struct {
	Filters []filter `ec2:"Filter"`
	DryRun  bool     `ec2:"DryRun"`
	paging
}

type describeTagsResponse struct {
	reply
	Tags      set[tagDescription] `xml:"tagSet"`
	NextToken string              `xml:"nextToken,omitempty"`
}

type tagDescription struct {
	ResourceID   string `xml:"resourceId"`
	ResourceType string `xml:"resourceType"`
	Key          string `xml:"key"`
	Value        string `xml:"value"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeTags.html
func describeTags(c *call, in describeTagsRequest) (*describeTagsResponse, error) {
	fields := map[string]func(tagDescription) []string{
		"key":           func(t tagDescription) []string { return one(t.Key) },
		"resource-id":   func(t tagDescription) []string { return one(t.ResourceID) },
		"resource-type": func(t tagDescription) []string { return one(t.ResourceType) },
		"value":         func(t tagDescription) []string { return []string{t.Value} },
	}
	for _, f := range in.Filters {
		// tag:<key> is for DescribeTags the same as key and value together.
		if key, ok := strings.CutPrefix(f.Name, "tag:"); ok && key != "" {
			fields[f.Name] = func(t tagDescription) []string {
				if t.Key != key {
					return nil
				}
				return []string{t.Value}
			}
		}
	}
	list, err := filters[tagDescription]{fields: fields}.choose(c.allTags(), in.Filters)
	if err != nil {
		return nil, err
	}
	list, next, err := cut(in.paging, pageSize{5, 1000, 1000}, list,
		func(t tagDescription) string { return t.ResourceID + "\x00" + t.Key })
	if err != nil {
		return nil, err
	}
	return &describeTagsResponse{Tags: set[tagDescription]{list}, NextToken: next}, nil
}

func (c *call) allTags() []tagDescription {
	var out []tagDescription
	add := func(id, kind string, tags map[string]string) {
		for k, v := range tags {
			out = append(out, tagDescription{id, kind, k, v})
		}
	}
	view := c.view()
	for _, v := range view.VPCs() {
		add(v.ID, "vpc", v.Tags)
	}
	for _, s := range view.Subnets() {
		add(s.ID, "subnet", s.Tags)
	}
	for _, r := range view.Reservations() {
		add(r.ID, "subnet-cidr-reservation", r.Tags)
	}
	for _, i := range view.Instances() {
		add(i.ID, "instance", i.Tags)
	}
	for _, e := range view.AllENIs() {
		add(e.ID, "network-interface", e.Tags)
	}
	return out
}
