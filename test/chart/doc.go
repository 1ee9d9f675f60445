// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package chart holds the Helm chart to what it installs: a real Helm renders it, and installs, upgrades and removes it on a real API
// server; our programs start with the arguments that it gives them; its rules are the examples' rules, and its values, their schema and their
// documentation agree. Nobody imports it. No container runs; what the programs do is tested elsewhere.
package chart
