// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ledger

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestAFileCutAnywhereIsAPrefixOfTheHistory is the heart of it: a process may die at any byte.
func TestAFileCutAnywhereIsAPrefixOfTheHistory(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, here)
	history := []map[string]string{{}}
	ends := []int64{l.Stats().Size}
	now := map[string]string{}
	for i := range 18 {
		batch := []Entry{set(fmt.Sprintf("k%d", i%7), fmt.Sprintf(`{"n":%d,"s":"a b \"c\" <é>"}`, i)), set("last", strconv.Itoa(i))}
		if i%3 == 2 {
			batch = append(batch, del(fmt.Sprintf("k%d", (i+4)%7)))
		}
		mustPut(t, l, batch...)
		for _, e := range batch {
			if now[e.Key] = string(e.Value); e.Value == nil {
				delete(now, e.Key)
			}
		}
		history = append(history, maps.Clone(now))
		ends = append(ends, l.Stats().Size)
	}
	mustClose(t, l)
	whole, err := os.ReadFile(filepath.Join(dir, ledgerName))
	if err != nil {
		t.Fatal(err)
	}

	cut := filepath.Join(t.TempDir(), "cut")
	for length := range len(whole) + 1 {
		n := 0 // the last Put that is whole at this length
		for n+1 < len(ends) && ends[n+1] <= int64(length) {
			n++
		}
		if err := errors.Join(os.RemoveAll(cut), os.Mkdir(cut, 0o700), os.WriteFile(filepath.Join(cut, ledgerName), whole[:length], 0o600)); err != nil {
			t.Fatal(err)
		}
		l, found, err := Open(cut, here)
		if err != nil {
			t.Fatalf("cut at %d: %v", length, err)
		}
		if diff := cmp.Diff(history[n], text(found.Entries)); diff != "" || found.Damaged != 0 {
			t.Fatalf("cut at %d of %d: %d damaged, entries (-want +got):\n%s", length, len(whole), found.Damaged, diff)
		}
		mustPut(t, l, set("after", `"the cut"`)) // and the next record is readable
		mustClose(t, l)
		l, found, err = Open(cut, here)
		if err != nil || string(found.Entries["after"]) != `"the cut"` || len(found.Entries) != len(history[n])+1 || found.Damaged != 0 {
			t.Fatalf("cut at %d, then a Put: %v, %+v", length, err, found)
		}
		mustClose(t, l)
	}
}

// TestLedgerBehavesLikeAMap compares with a map over random schedules of puts, re-opens, reboots and torn tails, with
// rewriting at every turn.
func TestLedgerBehavesLikeAMap(t *testing.T) {
	keys := rapid.SampledFrom([]string{"", "a", "b", "c\n", "d/\"net1\"", "é\u2028", "a long key, a long key"})
	values := rapid.SampledFrom([]string{"", `null`, `0`, `"x"`, `{"a":[1,2,{"b":"<\u2028>"}]}`, "[ 1 ,\n2 ]", `"` + strings.Repeat("y", 300) + `"`})
	compact := map[string]string{"[ 1 ,\n2 ]": "[1,2]"}
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "ledger")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		id, acted := Identity{InstanceID: "i-0a", BootID: "0"}, "0" // acted: boot ID of the last Put
		threshold := rapid.SampledFrom([]int64{1, 500, 2000}).Draw(t, "threshold")
		l, _, err := open(dir, id, threshold)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { l.Close() }()
		model := map[string]string{}
		reopen := func(t *rapid.T) {
			if err = l.Close(); err != nil {
				t.Fatal(err)
			}
			var found Opened
			if l, found, err = open(dir, id, threshold); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(model, text(found.Entries)); diff != "" {
				t.Fatalf("entries (-want +got):\n%s", diff)
			}
			if found.Rebooted != (id.BootID != acted) || found.Damaged != 0 {
				t.Fatalf("found %+v, boot %s, acted on %s", found, id.BootID, acted)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				var batch []Entry
				for range rapid.IntRange(1, 4).Draw(t, "entries") {
					k, v := keys.Draw(t, "key"), values.Draw(t, "value")
					if v == "" {
						batch = append(batch, del(k))
						delete(model, k)
						continue
					}
					batch = append(batch, set(k, v))
					model[k] = v
					if c, ok := compact[v]; ok {
						model[k] = c
					}
				}
				if err := l.Put(batch...); err != nil {
					t.Fatal(err)
				}
				acted = id.BootID
			},
			"reopen": reopen,
			"reboot": func(t *rapid.T) {
				n, _ := strconv.Atoi(id.BootID)
				id.BootID = strconv.Itoa(n + 1)
				reopen(t)
			},
			"torn tail": func(t *rapid.T) {
				raw, err := frame(line{Put: []change{{Key: "torn", Value: json.RawMessage(`1`)}}})
				if err != nil {
					t.Fatal(err)
				}
				raw = raw[:rapid.IntRange(1, len(raw)-1).Draw(t, "bytes")]
				f, err := os.OpenFile(filepath.Join(dir, ledgerName), os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.Write(raw); err != nil {
					t.Fatal(err)
				}
				f.Close()
				reopen(t)
			},
			"": func(t *rapid.T) {
				if s := l.Stats(); s.CompactError != nil || s.Live < 0 {
					t.Fatalf("%+v", s)
				}
			},
		})
	})
}

// TestKilledProcessLosesNothingItAcknowledged kills real processes at random moments, rewriting included: what was
// acknowledged is there, and of what was in flight all or nothing.
func TestKilledProcessLosesNothingItAcknowledged(t *testing.T) {
	if dir := os.Getenv("LEDGER_CHILD_DIR"); dir != "" {
		putForever(dir)
	}
	dir := t.TempDir()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	next := 0
	for round := range 25 {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), "LEDGER_CHILD_DIR="+dir, "LEDGER_CHILD_FROM="+strconv.Itoa(next))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err = child.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged, killAfter := next-1, next+rng.IntN(400)
		for in := bufio.NewScanner(out); in.Scan(); {
			if acknowledged, err = strconv.Atoi(in.Text()); err != nil {
				t.Fatalf("round %d: the child says %q", round, in.Text())
			}
			if acknowledged == killAfter {
				if err = child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err = child.Wait(); err == nil || child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d: the child was not killed: %v", round, err)
		}

		l, found, err := open(dir, here, childCompactMin)
		if err != nil || found.Damaged != 0 || found.SetAside != "" {
			t.Fatalf("round %d: %+v, %v", round, found, err)
		}
		last, err := strconv.Atoi(string(found.Entries["last"]))
		if err != nil || last < acknowledged || last > acknowledged+1 {
			t.Fatalf("round %d: last is %q, acknowledged %d", round, found.Entries["last"], acknowledged)
		}
		for i := max(0, last-9); i <= last; i++ {
			if got := string(found.Entries[fmt.Sprintf("slot-%d", i%10)]); got != strconv.Itoa(i) {
				t.Fatalf("round %d: slot-%d is %q, want %d: half a Put", round, i%10, got, i)
			}
		}
		mustClose(t, l)
		next = last + 1
	}
}

const childCompactMin = 4000

// putForever is the child: it prints each number once its Put returned.
func putForever(dir string) {
	l, _, err := open(dir, here, childCompactMin)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	from, _ := strconv.Atoi(os.Getenv("LEDGER_CHILD_FROM"))
	for i := from; ; i++ {
		n := strconv.Itoa(i)
		if err := l.Put(set("last", n), set(fmt.Sprintf("slot-%d", i%10), n)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// TestFullDiskCostsOnlyThePutThatMetIt uses a file system of 64 KiB in a mount namespace of its own.
func TestFullDiskCostsOnlyThePutThatMetIt(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread, with its mount namespace, ends with the goroutine
		dir := t.TempDir()
		if err := errors.Join(
			syscall.Unshare(syscall.CLONE_NEWNS),
			syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
			syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"),
		); err != nil {
			t.Errorf("mount: %v", err)
			return
		}
		fullDisk(t, dir)
	}()
	<-done
}

func fullDisk(t *testing.T, dir string) {
	l, _, err := Open(dir, here)
	if err != nil {
		t.Error(err)
		return
	}
	ballast := filepath.Join(dir, "ballast")
	if err = os.WriteFile(ballast, make([]byte, 20<<10), 0o600); err != nil {
		t.Error(err)
		return
	}
	want := map[string]string{}
	put := func(i int) error {
		k, v := fmt.Sprintf("k%d", i), `"`+strings.Repeat("v", 700)+`"`
		putErr := l.Put(set(k, v))
		if putErr == nil {
			want[k] = v
		}
		return putErr
	}
	i := 0
	for ; i < 1000; i++ {
		if err = put(i); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("after %d puts: %v, want ENOSPC", i, err)
	}
	if err = put(i + 1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("put on the full disk: %v, want ENOSPC", err)
	}
	if err = errors.Join(l.Close(), os.Remove(ballast)); err != nil {
		t.Error(err)
	}
	l, found, err := Open(dir, here)
	if err != nil || found.Damaged != 0 {
		t.Errorf("open after the full disk: %+v, %v", found.Damaged, err)
		return
	}
	if diff := cmp.Diff(want, text(found.Entries)); diff != "" {
		t.Errorf("after the full disk (-want +got):\n%s", diff)
	}
	if err = put(i + 2); err != nil {
		t.Errorf("put with room again: %v", err)
	}
	if err = l.Close(); err != nil {
		t.Error(err)
	}
	l, found, err = Open(dir, here)
	if err != nil {
		t.Error(err)
		return
	}
	if diff := cmp.Diff(want, text(found.Entries)); diff != "" {
		t.Errorf("with room again (-want +got):\n%s", diff)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
