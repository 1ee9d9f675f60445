// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import "runtime"

// init keeps the process's first thread for the main goroutine. A goroutine of a test that is left in a namespace ends
// together with its thread; the first thread Go parks instead, and /proc/PID/ns/net would then lead to that namespace.
// https://pkg.go.dev/runtime#LockOSThread
func init() { runtime.LockOSThread() }
