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

// spent says how many tokens have been used up for a slot.
type spent map[Slot]int

// skip passes over a token that an earlier run has used up. There may be many of these after a run of failures: each takes twice the way of the one
// before.
func (s spent) skip(slot Slot) { s[slot] = max(1, 2*s[slot]) }

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
			r.skip(s.Target.Slot)
		}
		return s, true
	}
	return Step{}, false
}
