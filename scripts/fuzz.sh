#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Runs every fuzz target for FUZZTIME (30s each by default). Go fuzzes one target of one package at a time.
. "$(dirname "$0")/env.sh"

targets=$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ { names[++n] = $1 } /^ok/ { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }')
[[ -n $targets ]] || { say "no fuzz targets found"; exit 1; }
while read -r package name; do
  say "$package $name"
  go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-30s}" "$package"
done <<<"$targets"
