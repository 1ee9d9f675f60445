// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package drain tests the drain of workers against a real Kubernetes API server, which checks the rights of
// examples/drain-rbac.yaml, the tokens of a Lambda function's role, and PodDisruptionBudgets. What acts on the objects
// elsewhere (kubelets, a Deployment's controller, the disruption controller) the tests do.
package drain
