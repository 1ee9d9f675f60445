// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package floors holds the rules about the source tree as tests: who may import whom, one package comment each,
// licence headers, file lengths. A new package fails them until it has a row in the table: adding one is a conscious
// act. Rules that a linter knows are not here but in scripts/lint.sh.
package floors
