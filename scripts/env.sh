# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# Sourced by the other scripts: strict mode, the root of the tree, the cache folder.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export MULTUS_VPC_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/multus-vpc"

# say prints a progress line where it does not disturb a script's answer.
say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
