#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Builds the programs that a module pins with `tool` lines, and prints the folder they are in.
#   tools.sh tools        developer tools
#   tools.sh test/peers   cnitool and the reference CNI plugins
# The folder is named by what went in, so a second run only prints.
. "$(dirname "$0")/env.sh"

module=$1
key=$(cat "$module/go.mod" "$module/go.sum" <(go version) | sha256sum | cut -c1-16)
dir="$MULTUS_VPC_CACHE/$(basename "$module")/$key"
if [[ ! -d $dir ]]; then
  say "building the programs of $module/go.mod"
  mkdir -p "$(dirname "$dir")"
  tmp=$(mktemp -d "$dir.XXXX")
  trap 'rm -rf "$tmp"' EXIT
  chmod 755 "$tmp"
  (cd "$module" && GOBIN=$tmp CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' tool >&2)
  mv -T "$tmp" "$dir" 2>/dev/null || [[ -d $dir ]] # another run may have been first
fi
echo "$dir"
