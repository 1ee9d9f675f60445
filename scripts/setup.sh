#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Makes sure that this machine has what the demo (setup.sh demo) or all tests (setup.sh test) need. On Debian, as root,
# it installs the missing packages and prints the package manager's own time apart. Elsewhere it prints what is missing
# and exits 2 before it changes anything.
. "$(dirname "$0")/env.sh"

runner=.cache/vm
missing=()

# need PACKAGE CHECK… notes the package when the check fails.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

static_busybox() { [[ -x /bin/busybox || -x /usr/bin/busybox || -x /usr/bin/busybox.static ]]; }
c_library() { gcc -E -x c - <<<'#include <stdlib.h>'; }
debian_cli() { [[ -x /usr/bin/aws ]]; } # tests want this one, not one that a version manager put first on PATH

if ! command -v go >/dev/null; then
  say "needs Go $(awk '/^go /{print $2}' go.mod) or newer: https://go.dev/dl/"
  exit 2
fi

# Where the demo would run decides what it needs. Only root has to try; nothing is left in the tree yet.
where=vm
if [[ $EUID == 0 ]]; then
  built=$(mktemp -d)
  trap 'rm -rf "$built"' EXIT
  CGO_ENABLED=0 go build -o "$built/vm" ./test/vm
  where=$("$built/vm" -where 2>/dev/null)
fi

PATH=$PATH:/usr/sbin:/sbin # not on every user's
if [[ $where == vm || $1 == test ]]; then # the runner's own tests boot a machine in any case
  need qemu-system-x86 command -v qemu-system-x86_64
  need busybox-static static_busybox
  need kmod command -v depmod
  need e2fsprogs command -v mke2fs
fi
if [[ $1 == test ]]; then
  need gcc command -v gcc # the race detector needs cgo
  need libc6-dev c_library
  need awscli debian_cli
  need iproute2 command -v ip # the tests look at links with other eyes than our own
fi

# apt runs the package manager and adds up its time. What it says is of interest only when it fails.
spent=0
apt() {
  local start=$EPOCHREALTIME out
  out=$(DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" 2>&1) || { echo "$out" >&2; return 1; }
  spent=$(awk -v a="$start" -v b="$EPOCHREALTIME" -v s="$spent" 'BEGIN { printf "%.1f", s + b - a }')
}

if ((${#missing[@]})); then
  if [[ $EUID != 0 || ! -e /etc/debian_version ]]; then
    say "this machine lacks (names of Debian packages): ${missing[*]}"
    [[ ! -e /etc/debian_version ]] || say "as root: apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    exit 2
  fi
  say "installing ${missing[*]}"
  install=(install --no-install-recommends -y "${missing[@]}")
  # The package lists may be absent, or name versions that the archive no longer has.
  if ! apt-get --simulate "${install[@]}" >/dev/null 2>&1 || ! apt "${install[@]}"; then
    apt update
    apt "${install[@]}"
  fi
fi

mkdir -p .cache
CGO_ENABLED=0 go build -o "$runner" ./test/vm

if [[ $where == vm || $1 == test ]]; then
  start=$EPOCHREALTIME
  if ! "$runner" -fetch 2>.cache/fetch.log; then
    [[ $EUID == 0 && -e /etc/debian_version ]] || { cat .cache/fetch.log >&2; exit 2; }
    apt update
    "$runner" -fetch
  fi
  say "kernel for the virtual machine: $(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s"
fi
say "package manager: $spent s"
