#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# What a newcomer sees: a new clone of HEAD, empty home, Go caches and cache folder, `make demo` twice.
. "$(dirname "$0")/env.sh"

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT # Go's module cache is read-only
mkdir "$dir/home"
git clone -q "file://$PWD" "$dir/clone"
cd "$dir/clone"
say "clone of $(git log -1 --format='%h %s')"

demo() { # LABEL
  local start=$EPOCHREALTIME log="$dir/$1.log"
  # Nothing of the caller's environment but what finds programs and modules: a newcomer has not set ours either.
  local network=() name
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR; do
    [[ -z ${!name:-} ]] || network+=("$name=${!name}")
  done
  env -i "${network[@]}" HOME="$dir/home" PATH="$PATH" TERM="${TERM:-dumb}" KERNEL="${KERNEL:-}" GOFLAGS="${GOFLAGS:-}" \
    GOPROXY="$(go env GOPROXY)" GOSUMDB="$(go env GOSUMDB)" GOTOOLCHAIN="$(go env GOTOOLCHAIN)" \
    GOPATH="$dir/home/go" GOCACHE="$dir/home/gocache" XDG_CACHE_HOME="$dir/home/cache" \
    make --no-print-directory demo 2>&1 | tee "$log"
  times+=("$(awk -v label="$1" -v a="$start" -v b="$EPOCHREALTIME" '
    /^setup: package manager: / { packages = $4 }
    END { printf "%s run: %.1f s, and the package manager %.1f s", label, b - a - packages, packages }' "$log")")
}
times=()
demo first
demo second
printf 'fresh: %s\n' "${times[@]}"
