#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Static checks; each of them blocks. The rules about the tree itself (imports, package comments, licences, file
# lengths) are tests in test/floors.
. "$(dirname "$0")/env.sh"

tools=$(scripts/tools.sh tools)
packages=("${@:-./...}")
status=0

check() { # NAME COMMAND… fails when the command fails or prints anything
  local name=$1 out
  shift
  if ! out=$("$@" 2>&1) || [[ -n $out ]]; then
    printf '%s:\n%s\n' "$name" "$out"
    status=1
  fi
}

sources() { git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 ls -d 2>/dev/null; }
mapfile -t files < <(sources)

# The tests behind the tag ipvlan are additional files, so one pass with the tag sees everything.
export GOFLAGS="${GOFLAGS:-} -tags=ipvlan"
check gofumpt "$tools/gofumpt" -l "${files[@]}"
check vet go vet "${packages[@]}"
check shadow go vet -vettool="$tools/shadow" "${packages[@]}"
check errorlint "$tools/go-errorlint" "${packages[@]}"
check staticcheck "$tools/staticcheck" "${packages[@]}"
check shell bash -n scripts/*.sh .ci/run
((status)) || say "clean"
exit $status
