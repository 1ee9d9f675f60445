#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Tells the story of the README on one machine: directly where the kernel has ipvlan and we are root, else in a VM.
. "$(dirname "$0")/env.sh"
exec .cache/vm -ship bin bin/vpclab demo "$@"
