// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package ledger is the node's durable memory: a map from string keys to JSON values in an append-only file. The agent
// keeps there who holds which address. A [Ledger.Put] is all or nothing however the process dies, a damaged record costs
// that record alone, and a file from another instance or another boot is recognised as such. What keys and values mean
// does not belong here.
//
// # Durability
//
// Put does one write and no fsync: the page cache outlives the process, so nothing is lost to SIGKILL. A power loss may
// lose the last seconds; it ends every pod of the node as well. Rewriting the file (see below) does fsync, before the
// rename and of the directory after it.
//
// # Format
//
// A file of lines, each "CRC32C-in-hex JSON\n". A JSON object with the member "ledger" is a header: format number, oldest
// reader, instance ID, boot ID. It stands on the first two lines, so that one damaged line does not orphan the file; the
// last one counts. An object with "put" is a record of keys and values that take effect together; an entry without a value
// deletes its key. The first record after a reboot has both. Any other object is of a kind that a newer agent invented: it
// is skipped, and kept when the file is rewritten.
//
// The file is rewritten with one record per live key when it is larger than 1 MiB and four times what is live, and by
// [Open] when it is new or damaged.
//
// A newer agent that changes the format says in its header which [Format] a reader needs at least. As long as that is
// ours, going back a version works; otherwise Open fails with [ErrNewerFormat] and touches nothing.
package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"unicode/utf8"
)

// Format is the number of the file format that this package writes.
const Format = 1

var (
	// ErrLocked: another process has the directory's ledger open.
	ErrLocked = errors.New("locked by another agent")
	// ErrNewerFormat: the file needs a newer agent than this one.
	ErrNewerFormat = errors.New("ledger written by a newer agent")
)

// Names inside the directory. The damaged and foreign copies are for people; nothing reads them.
const (
	lockName    = "lock"
	ledgerName  = "ledger"
	tempName    = "ledger.new"
	damagedName = "ledger.damaged"
	orphanName  = "unidentified" // as in ledger.unidentified: no header could be read
)

// compactMin is the file size from which rewriting is considered: at some 400 bytes a record, 2,600 changes.
const compactMin = 1 << 20

// Identity says whose ledger it is, and since when what it says about network namespaces can be true.
type Identity struct {
	InstanceID string
	BootID     string // /proc/sys/kernel/random/boot_id
}

// Entry is one key's new value.
type Entry struct {
	Key   string
	Value json.RawMessage // valid JSON; nil deletes the key
}

// Opened is what [Open] found.
type Opened struct {
	// Entries are the live keys and their values. The caller owns the map.
	Entries map[string]json.RawMessage
	// Rebooted: the entries were written before the node's last boot. Open says so again until the first Put succeeded, so
	// that Put should carry all that follows from the reboot.
	Rebooted bool
	// SetAside is where the ledger of another instance (a copied disk, a golden image), or one without a readable header,
	// was moved; Entries are empty then.
	SetAside string
	// Damaged counts the records that could not be read; DamagedCopy is where the file as it was found is kept; only the latest is.
	Damaged     int
	DamagedCopy string
}

// Stats describe the file.
type Stats struct {
	Size, Live  int64 // bytes of the file, and of what a rewritten file would need
	Compactions int   // since Open
	// CompactError is why the last attempt to rewrite the file failed. The ledger works on: the file only grows.
	CompactError error
}

// Ledger is an open ledger. Its methods may be called concurrently.
type Ledger struct {
	dir        string
	lock       *os.File
	compactMin int64

	mu          sync.Mutex
	file        *os.File // nil after Close
	state       state
	boot        *header // what the next record has to say of a reboot; nil when there is nothing to say
	size        int64   // the file's length up to the last good record
	torn        bool    // what follows size could not be cut off yet
	retry       int64   // after a failed compaction: size at which to try again
	compactions int
	err         error // of the last compaction
}

// Open locks dir, creating it if need be, and reads its ledger. While another process has it open the error is
// [ErrLocked]. The caller closes the Ledger.
func Open(dir string, id Identity) (*Ledger, Opened, error) {
	return open(dir, id, compactMin)
}

func open(dir string, id Identity, compactMin int64) (l *Ledger, found Opened, err error) {
	if id.InstanceID == "" || id.BootID == "" {
		return nil, Opened{}, fmt.Errorf("open ledger in %s: instance ID %q or boot ID %q is empty", dir, id.InstanceID, id.BootID)
	}
	lock, err := acquire(dir)
	if err != nil {
		return nil, Opened{}, fmt.Errorf("open ledger: %w", err)
	}
	l = &Ledger{dir: dir, lock: lock, compactMin: compactMin}
	defer func() {
		if err != nil {
			l.close()
			l, found, err = nil, Opened{}, fmt.Errorf("open ledger in %s: %w", dir, err)
		}
	}()

	data, err := os.ReadFile(l.path(ledgerName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, found, err
	}
	fresh := err != nil
	s, good, damaged := read(data)
	found.Damaged = damaged
	switch {
	case fresh:
	case s.header.InstanceID != id.InstanceID:
		if found.SetAside, err = l.setAside(s.header.InstanceID); err != nil {
			return l, found, err
		}
		s, fresh = newState(), true
	case s.header.MinReader > Format:
		return l, found, fmt.Errorf("%w: it needs format %d, this agent knows %d", ErrNewerFormat, s.header.MinReader, Format)
	case damaged > 0:
		if found.DamagedCopy, err = l.keepCopy(); err != nil {
			return l, found, err
		}
	}
	found.Entries = s.entries()
	own := header{Format: max(Format, s.header.Format), MinReader: max(1, s.header.MinReader), InstanceID: id.InstanceID, BootID: id.BootID}
	if fresh {
		s.header = own
	}
	l.state, l.size = s, good
	if found.Rebooted = s.header.BootID != id.BootID; found.Rebooted {
		l.boot = &own
	}
	if fresh || damaged > 0 {
		return l, found, l.compact()
	}
	return l, found, l.reopen(int64(len(data)))
}

// Put makes all entries take effect together, in order: after it returned nil they are read back by the next Open, and
// after an error none is. A full disk is such an error, and no more than that: earlier records stay readable, and Put works
// again when there is room.
func (l *Ledger) Put(entries ...Entry) error {
	if len(entries) == 0 {
		return nil
	}
	changes, err := encode(entries)
	if err != nil {
		return fmt.Errorf("put in ledger: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return fmt.Errorf("put in ledger: %w", os.ErrClosed)
	}
	if err := l.append(line{Ledger: l.boot, Put: changes}); err != nil {
		return fmt.Errorf("put in ledger: %w", err)
	}
	if l.boot != nil {
		l.state.header, l.boot = *l.boot, nil
	}
	l.state.apply(changes)
	if l.size > max(l.compactMin, 4*l.state.live, l.retry) {
		// The record is safe whatever happens now, so a failure is not this Put's: Stats has it.
		if l.err = l.compact(); l.err != nil {
			l.retry = l.size + l.compactMin
		} else {
			l.retry = 0
			l.compactions++
		}
	}
	return nil
}

// append writes one line after the last good one, or leaves the file as it was.
func (l *Ledger) append(record line) error {
	raw, err := frame(record)
	if err != nil {
		return err
	}
	if l.torn {
		if err := l.file.Truncate(l.size); err != nil {
			return fmt.Errorf("cut off a torn record: %w", err)
		}
		l.torn = false
	}
	if _, err := l.file.WriteAt(raw, l.size); err != nil {
		l.torn = l.file.Truncate(l.size) != nil
		return err
	}
	l.size += int64(len(raw))
	return nil
}

// Stats describe the file as it is now.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Size: l.size, Live: l.state.live, Compactions: l.compactions, CompactError: l.err}
}

// Close gives up the lock. A Put after it fails with [os.ErrClosed]; a second Close does nothing.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.close()
}

func (l *Ledger) close() error {
	var errs []error
	for _, f := range []**os.File{&l.file, &l.lock} { // the lock last
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

func (l *Ledger) path(name string) string { return filepath.Join(l.dir, name) }

// acquire takes the directory's lock, which the kernel gives back when the process ends, however it ends.
func acquire(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// encode checks the entries and brings them into the form of the file.
func encode(entries []Entry) ([]change, error) {
	changes := make([]change, len(entries))
	for i, e := range entries {
		if !utf8.ValidString(e.Key) { // JSON could not give it back
			return nil, fmt.Errorf("key %q is not UTF-8", e.Key)
		}
		value, err := compactJSON(e.Value)
		if err != nil {
			return nil, fmt.Errorf("value of %q: %w", e.Key, err)
		}
		changes[i] = change{Key: e.Key, Value: value}
	}
	return changes, nil
}

// entries are copies: what a caller does with them does not reach the ledger.
func (s *state) entries() map[string]json.RawMessage {
	m := maps.Clone(s.values)
	for k, v := range m {
		m[k] = slices.Clone(v)
	}
	return m
}
