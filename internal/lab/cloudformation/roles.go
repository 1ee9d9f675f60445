// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"context"

	"github.com/multus-vpc/multus-vpc/internal/lab/iam"
)

// roleProvider makes roles. What they are to do with the lab's services is judged; managed policies give nothing here.
type roleProvider struct {
	inert *Inert
	roles *iam.Service
}

func (p roleProvider) Create(ctx context.Context, r Request) (Physical, error) {
	in := r.Properties
	role := iam.Role{Services: trusted(in.Raw("AssumeRolePolicyDocument"))}
	for _, policy := range in.Objects("Policies") {
		policy.Required("PolicyName")
		document, err := iam.ParsePolicy(policy.Raw("PolicyDocument"))
		if err != nil {
			policy.addf("PolicyDocument", "%v", err)
		}
		role.Policies = append(role.Policies, document)
	}
	if err := in.Err(); err != nil {
		return Physical{}, err
	}
	made, err := p.inert.Create(ctx, r)
	if err != nil {
		return Physical{}, err
	}
	role.ARN = made.Attributes["Arn"]
	p.roles.PutRole(role)
	return made, nil
}

func (p roleProvider) Delete(ctx context.Context, r Request, made Physical) error {
	p.roles.DeleteRole(made.Attributes["Arn"])
	return p.inert.Delete(ctx, r, made)
}

// trusted are the services that a trust policy lets assume the role. Conditions on federated principals are nothing to the lab.
func trusted(document any) (services []string) {
	root, _ := document.(map[string]any)
	statements, _ := root["Statement"].([]any)
	for _, v := range statements {
		s, _ := v.(map[string]any)
		principal, _ := s["Principal"].(map[string]any)
		switch of := principal["Service"].(type) {
		case string:
			services = append(services, of)
		case []any:
			for _, one := range of {
				services = append(services, text(one))
			}
		}
	}
	return services
}
