// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package inject runs the injector, with the objects of examples/injector and no right beyond theirs, behind the admission of a real
// API server, and makes pods as the controllers of Deployments, StatefulSets and Jobs would. Nobody imports it. Which pods get
// what is tested in internal/inject; what the containers do, elsewhere.
package inject
