#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Runs every fuzz target for FUZZTIME (30s each by default), or those whose name matches FUZZ. Go fuzzes one target of
# one package at a time. A target that fails does not keep the others from running.
. "$(dirname "$0")/env.sh"

targets=$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ { names[++n] = $1 } /^ok/ { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' |
  grep -E "${FUZZ:-.}") || { say "no fuzz targets found"; exit 1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
while read -r package name; do
  verdict=ok
  if ! nice -n 5 go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-30s}" "$package" >"$log" 2>&1; then
    verdict=FAILED status=1
    cat "$log"
  fi
  execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
  printf '%-6s %10s executions  %s %s\n' "$verdict" "${execs:-0}" "${package#github.com/multus-vpc/multus-vpc/}" "$name"
done <<<"$targets"
exit $status
