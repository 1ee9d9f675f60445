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

check() { # NAME COMMAND… shows what a command that fails has to say
  local name=$1 out
  shift
  if ! out=$("$@" 2>&1); then
    printf '%s:\n%s\n' "$name" "$out"
    status=1
  fi
}

formatted() { # FILE… fails when gofumpt would change one
  local out
  out=$("$tools/gofumpt" -l "$@") && [[ -z $out ]] || { echo "$out"; return 1; }
}

sources() { git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 ls -d 2>/dev/null; }
mapfile -t files < <(sources)

# The tests behind the tag ipvlan are additional files, so one pass with the tag sees everything.
export GOFLAGS="${GOFLAGS:-} -tags=ipvlan"
check gofumpt formatted "${files[@]}"
check vet go vet "${packages[@]}"
check shadow go vet -vettool="$tools/shadow" "${packages[@]}"
check errorlint "$tools/go-errorlint" "${packages[@]}"
check staticcheck "$tools/staticcheck" "${packages[@]}"
check shell bash -n scripts/*.sh .ci/run
((status)) || say "clean"
exit $status
