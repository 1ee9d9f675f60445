// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package cfn tests the templates of cfn/: their property names, required properties and types against the published
// schemas of the resources, their policies against the Service Authorization Reference, and their parameters against the
// conventions of cfn/README.md. That they can be deployed is tested in internal/lab/cloudformation.
package cfn
