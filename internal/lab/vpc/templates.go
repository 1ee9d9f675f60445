// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// LaunchTemplate is what instances are launched from, in versions that are numbered from 1 and never change.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/launch-templates.html
type LaunchTemplate struct {
	ID        string
	Name      string
	CreatedAt time.Time
	Versions  []LaunchTemplateData
	Default   int // number of the default version
	Tags      map[string]string
}

// LaunchTemplateData is one version. What the lab has nothing to do with (a key, a disk, a role) is kept and shown only.
type LaunchTemplateData struct {
	ImageID         string
	InstanceType    string
	KeyName         string
	UserData        string // in base64, as on the wire
	InstanceProfile string // ARN or name
	Groups          []string
	Interfaces      []InterfaceSpec
	Tags            map[string]string // of instances
	InterfaceTags   map[string]string
	VolumeTags      map[string]string
	Metadata        MetadataOptions
}

// CreateLaunchTemplateInput describes a template to be.
type CreateLaunchTemplateInput struct {
	Name        string
	Data        LaunchTemplateData
	Tags        map[string]string
	ClientToken string
}

// MetadataOptions say how the instance metadata answers. Empty fields are EC2's defaults.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_LaunchTemplateInstanceMetadataOptionsRequest.html
type MetadataOptions struct {
	HTTPTokens   string // "required" or "optional"
	HTTPEndpoint string // "enabled" or "disabled"
	HopLimit     int
}

// Latest is the number of the newest version.
func (t LaunchTemplate) Latest() int { return len(t.Versions) }

// Version returns the version that a launch names: a number, "$Latest", or "$Default" which "" means too.
func (t LaunchTemplate) Version(name string) (number int, data LaunchTemplateData, err error) {
	switch name {
	case "", "$Default":
		number = t.Default
	case "$Latest":
		number = t.Latest()
	default:
		n, bad := strconv.Atoi(name)
		if bad != nil || n < 1 || n > t.Latest() {
			// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html; unverified: the wording.
			return 0, data, Errorf("InvalidLaunchTemplateId.VersionNotFound", "Could not find launch template version: %s", name)
		}
		number = n
	}
	return number, t.Versions[number-1], nil
}

// CreateLaunchTemplate makes a template with its first version.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateLaunchTemplate.html
func (c *Cloud) CreateLaunchTemplate(now time.Time, in CreateLaunchTemplateInput) (out LaunchTemplate, failure error) {
	failure = c.change(now, func(tx *change) error {
		again, ok, err := repeated[LaunchTemplate](tx, "CreateLaunchTemplate", in.ClientToken, in)
		if ok || err != nil {
			out = again
			return err
		}
		if in.Name == "" {
			return errMissing("LaunchTemplateName")
		}
		if slices.ContainsFunc(tx.templates.all(), func(t LaunchTemplate) bool { return t.Name == in.Name }) {
			return Errorf("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
		}
		if err := checkTemplate(in.Data); err != nil {
			return err
		}
		out = LaunchTemplate{
			ID: tx.newID("lt"), Name: in.Name, CreatedAt: tx.stamp(), Versions: []LaunchTemplateData{in.Data}, Default: 1,
			Tags: maps.Clone(in.Tags),
		}
		tx.putTemplate(out)
		remember(tx, "CreateLaunchTemplate", in.ClientToken, in, out)
		return CheckTags(in.Tags)
	})
	if failure != nil {
		return LaunchTemplate{}, failure
	}
	return out, nil
}

// CreateLaunchTemplateVersion adds a version, which does not become the default.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateLaunchTemplateVersion.html
func (c *Cloud) CreateLaunchTemplateVersion(now time.Time, id string, data LaunchTemplateData) (out LaunchTemplate, failure error) {
	failure = c.change(now, func(tx *change) error {
		t, ok := tx.templates.newest(id)
		if !ok {
			return errTemplateNotFound(id)
		}
		if err := checkTemplate(data); err != nil {
			return err
		}
		t.Versions = append(slices.Clone(t.Versions), data)
		out = t
		tx.putTemplate(t)
		return nil
	})
	return out, failure
}

// DeleteLaunchTemplate removes a template with all its versions. Instances launched from it are not touched.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteLaunchTemplate.html
func (c *Cloud) DeleteLaunchTemplate(now time.Time, id string) (out LaunchTemplate, err error) {
	err = c.change(now, func(tx *change) error {
		t, ok := tx.templates.newest(id)
		if !ok {
			return errTemplateNotFound(id)
		}
		out = t
		tx.commit = append(tx.commit, func() { tx.templates.remove(tx.now, id) })
		return nil
	})
	return out, err
}

// LaunchTemplates returns all templates, sorted by ID.
func (v View) LaunchTemplates() []LaunchTemplate {
	v.cloud.mu.Lock()
	defer v.cloud.mu.Unlock()
	return v.cloud.templates.allAsOf(v.at)
}

// LaunchTemplate returns the template of that ID or name.
func (v View) LaunchTemplate(idOrName string) (LaunchTemplate, error) {
	for _, t := range v.LaunchTemplates() {
		if t.ID == idOrName || t.Name == idOrName {
			return t, nil
		}
	}
	return LaunchTemplate{}, errTemplateNotFound(idOrName)
}

func (tx *change) putTemplate(t LaunchTemplate) {
	tx.commit = append(tx.commit, func() { tx.templates.put(tx.now, t.ID, t) })
}

// checkTemplate refuses what no launch from the template could be.
func checkTemplate(d LaunchTemplateData) error {
	if d.InstanceType != "" {
		if _, ok := LookupInstanceType(d.InstanceType); !ok {
			return InvalidValue("Invalid value '%s' for InstanceType.", d.InstanceType)
		}
	}
	if len(d.Interfaces) > 0 && len(d.Groups) > 0 {
		// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RequestLaunchTemplateData.html
		return errCombination("Network interfaces and an instance-level security groups may not be specified on the same request")
	}
	for _, tags := range []map[string]string{d.Tags, d.InterfaceTags, d.VolumeTags} {
		if err := CheckTags(tags); err != nil {
			return err
		}
	}
	return nil
}

// unverified: the wording.
func errTemplateNotFound(id string) *APIError {
	return Errorf("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", id)
}
