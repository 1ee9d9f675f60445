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

# A package that Go 1.26 first vetted as another one's dependency counts as clean from then on: its cache keeps one
# answer for both. So vet runs on all packages at once, as a copy, whose answers are apart from those of anybody's
# `go vet ./one/package`. The other analysers run by themselves and have no such cache.
mkdir -p .cache
cp "$(go tool -n vet)" .cache/vet

# The tests behind the tag ipvlan are additional files, so one pass with the tag sees everything.
export GOFLAGS="${GOFLAGS:-} -tags=ipvlan"
check gofumpt formatted "${files[@]}"
check vet go vet -vettool="$PWD/.cache/vet" ./...
check shadow "$tools/shadow" "${packages[@]}"
check errorlint "$tools/go-errorlint" "${packages[@]}"
check staticcheck "$tools/staticcheck" "${packages[@]}"
check shell bash -n scripts/*.sh .ci/run
((status)) || say "clean"
exit $status
