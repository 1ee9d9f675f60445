// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
)

// answersRecorded reports whether one of the records is what an ADD or a DEL has to write before it is answered.
func answersRecorded(records []byte) bool {
	return bytes.Contains(records, []byte(`"state":"held"`)) || bytes.Contains(records, []byte(`"state":"cooling"`))
}

// watchLedger returns as soon as records that match follow the first bytes of the file. It looks all the time: the
// answer to an ADD follows its record by some 50 µs.
func watchLedger(ctx context.Context, file string, from int64, match func(records []byte) bool) error {
	for ctx.Err() == nil {
		info, err := os.Stat(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && info.Size() != from {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if int64(len(data)) < from { // rewritten
				from = 0
			}
			if match(data[from:]) {
				return nil
			}
			from = int64(len(data))
		}
		runtime.Gosched()
	}
	return context.Cause(ctx)
}

func ledgerSize(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}
