#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Writes test/cfn/testdata/schemas.json anew: the published schemas of the resource types that cfn/*.yaml use. Needs npm.
# Run it when a template uses another type, and now and then for new properties; then look at the difference.
set -eu
cd "$(dirname "$0")/.."
version=${1:-$(npm view --silent @aws-cdk/aws-service-spec version)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "@aws-cdk/aws-service-spec@$version" >/dev/null && tar xzf ./*.tgz)
go run ./test/cfn/refresh -db "$work/package/db.json.gz" -version "$version"
