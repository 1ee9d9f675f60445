// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package examples applies every object of the folder examples to a real API server, and makes a pod of every template there, so
// that what people copy is what Kubernetes takes. That the plugins take the networks is a test of the documents; what
// pods and networks then do is tested where they run.
package examples
