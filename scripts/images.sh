#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Builds the image for all platforms with what this machine has: docker with buildx, podman or buildah.
#   IMAGE       name and tag; default multus-vpc:VERSION, the version that the chart takes
#   PLATFORMS   default linux/amd64,linux/arm64
#   PUSH=yes    to IMAGE's registry, where you are logged in; else into dist/multus-vpc-image.tar, an OCI archive
#   BUILDER     docker, podman or buildah; default: the first that works
# BUILD_FLAGS goes to the builder, such as --build-arg GO_IMAGE=… for a mirror of Docker Hub.
. "$(dirname "$0")/env.sh"

version=$(sed -nE 's/^appVersion: "(.*)"$/\1/p' charts/multus-vpc/Chart.yaml)
image=${IMAGE:-multus-vpc:$version}
platforms=${PLATFORMS:-linux/amd64,linux/arm64}
push=${PUSH:-no}
archive=dist/multus-vpc-image.tar
read -ra flags <<<"${BUILD_FLAGS:-}"

works() { # BUILDER
  case $1 in
  docker) docker buildx version && docker info ;;
  podman | buildah) "$1" info ;;
  *) return 1 ;;
  esac &>/dev/null
}

builder=
for candidate in ${BUILDER:-docker podman buildah}; do
  if works "$candidate"; then
    builder=$candidate
    break
  fi
done
if [[ -z $builder ]]; then
  cat >&2 <<EOF
images: no builder of images works on this machine. One of these is needed:
  docker    with buildx, and its daemon running (https://docs.docker.com/engine/install/)
  podman    4 or later (Debian: apt-get install podman)
  buildah   1.28 or later (Debian: apt-get install buildah)
EOF
  exit 2
fi
if [[ $push != yes && $push != no ]]; then
  echo "images: PUSH is yes or no, not $push" >&2
  exit 2
fi
if [[ $push == yes && $image != */* ]]; then
  echo "images: to push, IMAGE needs its registry, as in IMAGE=111122223333.dkr.ecr.us-west-2.amazonaws.com/multus-vpc:$version" >&2
  exit 2
fi

say "building $image for $platforms with $builder"
mkdir -p dist
# The last commit's time, for what the layers say of their files: the same sources give the same layers.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
if [[ $builder == docker ]]; then
  output=type=oci,dest=$archive,rewrite-timestamp=true
  [[ $push == no ]] || output=type=registry,rewrite-timestamp=true
  docker buildx build "${flags[@]}" --platform "$platforms" --tag "$image" --provenance=false --output "$output" .
else
  "$builder" manifest rm "$image" &>/dev/null || true # of an earlier run; a manifest that is there is added to
  # Unlike docker they do not say by themselves what they run on, and would emulate the compiler.
  host=$(uname -m | sed 's/^x86_64$/amd64/; s/^aarch64$/arm64/')
  "$builder" build "${flags[@]}" --build-arg BUILDPLATFORM="linux/$host" \
    --platform "$platforms" --timestamp "$SOURCE_DATE_EPOCH" --manifest "$image" .
  rm -f "$archive"
  destination=oci-archive:$archive
  [[ $push == no ]] || destination=docker://$image
  "$builder" manifest push --all "$image" "$destination"
fi
[[ $push == yes ]] && say "pushed $image" || say "built $archive"
