// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
)

// delegateRows are about an interface plugin and the IPAM plugin that it executes, whose place a stand-in takes.
func delegateRows() []row {
	one := func(id string, l level, says, since string, f func(*kit) error) row {
		return row{id: id, level: l, where: "§4", says: says, since: since, form: id == "delegate-call", needs: []need{anInterface, executing}, check: f}
	}
	return []row{
		one("delegate-call", must, "the IPAM plugin gets the same configuration and the same CNI_ variables", "", delegateCall),
		one("delegate-add-fails", should, "when its ADD fails, it is called with DEL before ADD fails", "", delegateAddFails),
		one("delegate-add-empty", extra, "so it is when it gave no address", "", delegateAddEmpty),
		one("delegate-undo", extra, "so it is when the plugin cannot print its own result", "", delegateUndo),
		one("delegate-del", must, "DEL calls it, also without a namespace", "", delegateDel),
		one("delegate-del-fails", extra, "its error in DEL is returned, and the interface is removed all the same", "", delegateDelFails),
		one("delegate-check", should, "CHECK calls it, and its error is returned", checkSince, delegateOther("CHECK")),
		one("delegate-status", must, "STATUS calls it, and its error is returned", statusSince, delegateOther("STATUS")),
		one("delegate-gc", must, "GC calls it, and its error is returned", statusSince, delegateOther("GC")),
	}
}

// scripted is what the stand-in gives, an address that nobody else has.
func (k *kit) scripted(a *attachment, fail ...string) script {
	address := object{"address": fmt.Sprintf(k.subject.Spare, 100+a.n%100)}
	if !since(k.version, "1.0.0") {
		address["version"] = "4"
	}
	return script{Fail: fail, Result: object{"ips": []any{address}}}
}

// staged runs f with a container and a stand-in.
func (k *kit) staged(make func(*attachment) script, f func(*attachment, cast) error) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	c, err := k.cast(make(a))
	defer os.RemoveAll(c.dir)
	if err != nil {
		return err
	}
	return f(a, c)
}

func (c cast) env() map[string]string { return map[string]string{"CNI_PATH": c.path} }

// rewrite gives the stand-in another script.
func (c cast) rewrite(s script) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(c.dir+"/"+scriptFile, text, 0o600)
}

func (k *kit) addBy(a *attachment, c cast) error {
	r, err := k.do(call{command: "ADD", at: a, env: c.env()})
	if err != nil {
		return err
	}
	a.result, err = r.result(k.version)
	return err
}

// offBy is the DEL that the row itself owes.
func (k *kit) offBy(a *attachment, c cast) error {
	return k.must(call{command: "DEL", at: a, env: c.env()})
}

func delegateCall(k *kit) error {
	return k.staged(func(a *attachment) script { return k.scripted(a) }, func(a *attachment, c cast) error {
		sent := call{command: "ADD", at: a, env: c.env(), config: object{"args": object{"cni": object{"a": "b"}}}}
		if err := k.must(sent); err != nil {
			return err
		}
		list, err := c.calls()
		if err != nil || len(list) == 0 || list[0].Command != "ADD" {
			return errors.Join(err, errors.New("the IPAM plugin was not called with ADD"))
		}
		want := map[string]string{
			"CNI_COMMAND": "ADD", "CNI_CONTAINERID": a.id, "CNI_NETNS": a.netns, "CNI_IFNAME": a.ifName, "CNI_ARGS": a.args(), "CNI_PATH": c.path,
		}
		if !maps.Equal(list[0].Env, want) {
			return errors.New("its environment differs")
		}
		expected, err := json.Marshal(k.config(sent))
		if err != nil {
			return err
		}
		var got, sentConfig object
		if err := errors.Join(one(list[0].Stdin, &got), one(expected, &sentConfig)); err != nil {
			return err
		}
		if !reflect.DeepEqual(got, sentConfig) {
			return errors.New("its configuration differs")
		}
		return k.offBy(a, c)
	})
}

// undone is nil when the failed ADD was followed by the stand-in's DEL.
func (k *kit) undone(a *attachment, c cast) error {
	n, err := c.count("DEL")
	if err == nil && n == 0 {
		err = errors.New("the IPAM plugin was not called with DEL")
	}
	return errors.Join(err, k.offBy(a, c))
}

func delegateAddFails(k *kit) error {
	return k.staged(func(a *attachment) script { return k.scripted(a, "ADD") }, func(a *attachment, c cast) error {
		if _, _, err := k.fails(call{command: "ADD", at: a, env: c.env()}); err != nil {
			return err
		}
		return k.undone(a, c)
	})
}

func delegateAddEmpty(k *kit) error {
	return k.staged(func(*attachment) script { return script{Result: object{}} }, func(a *attachment, c cast) error {
		if _, _, err := k.fails(call{command: "ADD", at: a, env: c.env()}); err != nil {
			return err
		}
		return k.undone(a, c)
	})
}

func delegateUndo(k *kit) error {
	return k.staged(func(a *attachment) script { return k.scripted(a) }, func(a *attachment, c cast) error {
		to, err := full()
		if err != nil {
			return err
		}
		defer to.Close()
		r, err := k.do(call{command: "ADD", at: a, env: c.env(), stdout: to})
		if err == nil && r.code == 0 {
			err = errors.New("ADD succeeded though its result could not be printed")
		}
		return errors.Join(err, k.undone(a, c))
	})
}

func delegateDel(k *kit) error {
	return k.staged(func(a *attachment) script { return k.scripted(a) }, func(a *attachment, c cast) error {
		for i := range 2 {
			env := c.env()
			if i == 1 {
				env["CNI_NETNS"] = ""
			}
			if err := k.must(call{command: "DEL", at: a, env: env}); err != nil {
				return err
			}
			if n, err := c.count("DEL"); err != nil || n != i+1 {
				return errors.Join(err, errors.New("the IPAM plugin was not called with DEL"))
			}
		}
		return nil
	})
}

func delegateDelFails(k *kit) error {
	return k.staged(func(a *attachment) script { return k.scripted(a, "DEL") }, func(a *attachment, c cast) error {
		if err := k.addBy(a, c); err != nil {
			return err
		}
		if err := k.relayed(call{command: "DEL", at: a, env: c.env()}); err != nil {
			return err
		}
		if has, err := a.has(); err != nil || has {
			return errors.Join(err, errors.New("the interface is still there"))
		}
		return errors.Join(c.rewrite(k.scripted(a)), k.offBy(a, c))
	})
}

// relayed is a call that fails with the stand-in's error.
func (k *kit) relayed(c call) error {
	_, message, err := k.fails(c)
	if err == nil && message == "" {
		err = errors.New("the error has no message")
	}
	return err
}

func delegateOther(command string) func(*kit) error {
	return func(k *kit) error {
		return k.staged(func(a *attachment) script { return k.scripted(a) }, func(a *attachment, c cast) error {
			if err := k.addBy(a, c); err != nil {
				return err
			}
			about := call{command: command}
			switch command {
			case "CHECK":
				about = k.check(a)
			case "GC":
				about = k.gc(a)
			}
			about.env = c.env()
			if err := k.must(about); err != nil {
				return err
			}
			if n, err := c.count(command); err != nil || n == 0 {
				return errors.Join(err, fmt.Errorf("the IPAM plugin was not called with %s", command))
			}
			if err := c.rewrite(k.scripted(a, command)); err != nil {
				return err
			}
			return errors.Join(k.relayed(about), k.offBy(a, c))
		})
	}
}
