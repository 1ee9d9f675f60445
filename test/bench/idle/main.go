// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command idle does nothing. The benchmark runs it beside the plugins: it is what starting any Go process costs.
package main

func main() {}
