// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package simulate runs fleets of agents on virtual time: the pool flow as it is, 50 to 5,000 of it, against the lab's EC2
// whose request rate limits they share. It counts what the fleet asks of EC2 and how long it takes to have its stock, when
// all workers start at once, when pods come, when workers join and when nothing happens. `make simulate` prints the table
// that docs/simulate.md discusses; the tests hold the goals at a size that every test run can afford. The package has only
// tests, because virtual time is testing/synctest's. What one worker does in which case belongs to the tests of
// internal/pool.
package simulate
