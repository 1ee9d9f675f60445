#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Builds the programs that a module, or every module below a folder, pins with `tool` lines, and prints the folder they
# are in.
#   tools.sh tools        developer tools
#   tools.sh test/peers   cnitool and the reference CNI plugins
#   tools.sh test/stack   etcd, kube-apiserver, Multus, whereabouts: some minutes at first
#   tools.sh test/chart/helm   Helm
# A comment after a tool is its program's name, where the package's says too little. Beside a go.mod, `ldflags` is for the
# linker, and `copies` names files of the pinned modules that lie beside the programs then. The folder is named by what
# went in, so a second run only prints.
. "$(dirname "$0")/env.sh"

folder=$1
mapfile -t inputs < <(find "$folder" -name go.mod -o -name go.sum -o -name ldflags -o -name copies | LC_ALL=C sort)
key=$(cat "${inputs[@]}" <(go version) | sha256sum | cut -c1-16)
dir="$MULTUS_VPC_CACHE/$(basename "$folder")/$key"

# build INTO installs the programs of the module in the current folder.
build() {
  local into=$1 ldflags='-s -w' package name module file
  [[ ! -f ldflags ]] || ldflags+=" $(tr '\n' ' ' <ldflags)"
  GOBIN=$into CGO_ENABLED=0 go install -trimpath -ldflags="$ldflags" tool >&2
  while read -r package name; do
    mv "$into/$(basename "${package%/v[0-9]*}")" "$into/$name"
  done < <(sed -nE 's|^(tool )?\s*(\S+) // (\S+)$|\2 \3|p' go.mod)
  [[ -f copies ]] || return 0
  while read -r module file; do
    install -m 644 "$(go list -m -f '{{.Dir}}' "$module")/$file" "$into/"
  done <copies
}

if [[ ! -d $dir ]]; then
  mkdir -p "$(dirname "$dir")"
  tmp=$(mktemp -d "$dir.XXXX")
  trap 'rm -rf "$tmp"' EXIT
  chmod 755 "$tmp"
  for input in "${inputs[@]}"; do
    [[ $input == */go.mod ]] || continue
    say "building the programs of $input"
    (cd "$(dirname "$input")" && build "$tmp")
  done
  mv -T "$tmp" "$dir" 2>/dev/null || [[ -d $dir ]] # another run may have been first
fi
echo "$dir"
