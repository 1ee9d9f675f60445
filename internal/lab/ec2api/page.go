// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// paging are the parameters of a paginated call.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html#api-pagination
type paging struct {
	MaxResults *int   `ec2:"MaxResults"`
	NextToken  string `ec2:"NextToken"`
}

// pageSize bounds MaxResults; usual is the size of a page when it is not given.
type pageSize struct{ least, most, usual int }

// cut returns one page of the objects and the token of the next. The token says after which object to go on, so pages
// stay whole while objects come and go. The objects are sorted by their keys first.
func cut[T any](p paging, size pageSize, objects []T, key func(T) string) ([]T, string, error) {
	n := size.usual
	if p.MaxResults != nil {
		n = *p.MaxResults
		// https://github.com/aws/aws-sdk-ruby/pull/2575; unverified: the wording of the other end.
		if n < size.least {
			return nil, "", vpc.InvalidValue(
				"Value ( %d ) for parameter maxResults is invalid. Expecting a value greater than %d.", n, size.least)
		}
		if n > size.most {
			return nil, "", vpc.InvalidValue(
				"Value ( %d ) for parameter maxResults is invalid. Expecting a value smaller than %d.", n, size.most)
		}
	}
	objects = slices.SortedFunc(slices.Values(objects), func(a, b T) int { return strings.Compare(key(a), key(b)) })
	if p.NextToken != "" {
		after, err := base64.RawURLEncoding.DecodeString(p.NextToken)
		if err != nil {
			// unverified: code and wording.
			return nil, "", vpc.InvalidValue("Unable to parse pagination token")
		}
		objects = slices.DeleteFunc(objects, func(o T) bool { return key(o) <= string(after) })
	}
	if len(objects) <= n {
		return objects, "", nil
	}
	return objects[:n], base64.RawURLEncoding.EncodeToString([]byte(key(objects[n-1]))), nil
}

// together refuses IDs with MaxResults. https://github.com/aws/aws-cli/issues/1976
func (p paging) together(ids []string, parameter string) error {
	if len(ids) > 0 && p.MaxResults != nil {
		return vpc.Errorf("InvalidParameterCombination",
			"The parameter %s cannot be used with the parameter maxResults", parameter)
	}
	return nil
}

// named returns the objects of the given IDs, or all without IDs. missing words the IDs that do not exist.
func named[T any](objects []T, ids []string, id func(T) string, missing func(ids []string) error) ([]T, error) {
	if len(ids) == 0 {
		return objects, nil
	}
	var found []T
	var lost []string
	for _, want := range ids {
		i := slices.IndexFunc(objects, func(o T) bool { return id(o) == want })
		if i < 0 {
			lost = append(lost, want)
			continue
		}
		found = append(found, objects[i])
	}
	if len(lost) > 0 {
		return nil, missing(lost)
	}
	return found, nil
}

// notFound words IDs that do not exist as EC2 does, for one and for several.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html
func notFound(code, noun string) func(ids []string) error {
	return func(ids []string) error {
		if len(ids) == 1 {
			return vpc.Errorf(code, "The %s ID '%s' does not exist", noun, ids[0])
		}
		return vpc.Errorf(code, "The %s IDs '%s' do not exist", noun, strings.Join(ids, ", "))
	}
}
