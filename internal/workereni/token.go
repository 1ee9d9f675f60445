// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// token is at most 64 characters of ASCII, as EC2 wants it.
func token(owner string, worker eni.InstanceID, s Slot, spent int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %s %s %d", owner, worker, s, spent))
	return "multus-vpc-" + hex.EncodeToString(sum[:16])
}

// next is the first step that can be done. A creation whose token has made an ENI waits for EC2 to show it, and what is not a creation
// for all of them; when it is not shown for long, it was deleted, and the next token's turn has come.
func (r *run) next(steps []Step) (next Step, ok bool) {
	waits := false
	for _, s := range steps {
		since, refused := r.refused[s.Target.Slot]
		switch {
		case s.Do != Create:
			return s, !waits
		case refused && time.Since(since) <= settleTime:
			waits = true
			continue
		case refused:
			delete(r.refused, s.Target.Slot)
			r.spent[s.Target.Slot]++
		}
		return s, true
	}
	return Step{}, false
}
