// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package workers tests the story of `make demo-workers` with the real function: that it holds, and that it does not where
// something in the templates is wrong. Faults of the function itself are in test/mutants.
package workers
