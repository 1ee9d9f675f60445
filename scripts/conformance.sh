#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Holds plugins to the CNI specification and writes docs/conformance.md, or prints what came of a user's SUBJECT.
. "$(dirname "$0")/env.sh"

if [[ -n ${SUBJECT:-} ]]; then
  exec .cache/conformance run -v "$SUBJECT"
fi
outcomes=test/conformance/testdata/outcomes.json
MULTUS_VPC_STACK=$(scripts/tools.sh test/stack) .cache/conformance run -o json host > .cache/outcomes-host.json
.cache/vm -timeout 30m -memory 3072 -cpus "$(nproc)" -ship "$MULTUS_VPC_BIN" -ship "$MULTUS_VPC_PEERS" \
  .cache/conformance run -o json ipvlan > .cache/outcomes-ipvlan.json
mkdir -p "$(dirname "$outcomes")"
.cache/conformance merge .cache/outcomes-host.json .cache/outcomes-ipvlan.json > .cache/outcomes.json
mv .cache/outcomes.json "$outcomes"
.cache/conformance write "$outcomes" > docs/conformance.md
say "wrote $outcomes and docs/conformance.md"
