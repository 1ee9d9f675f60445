// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package sticky plays a StatefulSet whose pod moves between two workers of the lab and keeps its address, with the real
// agent and plugins: in order, away from a worker that is cut off, and with the old worker coming back. It measures how
// long others cannot reach the pod. Beside it are pods whose sandboxes fail over and over, which must not consume
// addresses. The tests need root; behind the build tag ipvlan are those in which packets flow. The package has only tests.
package sticky
