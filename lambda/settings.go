// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/drain"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// varAnswerHooks is "false" where the hooks are somebody else's: the function then neither answers them nor sends heartbeats. The other
// variables are [workereni.Vars] and [drain.Vars].
const varAnswerHooks = "AnswerHooks"

// settings are what the function's environment says. With an error nothing can be done for a worker; hooks are answered all the same.
type settings struct {
	workers     workereni.Config
	drain       drain.Config
	answerHooks bool
	err         error
}

// parse reports all that is wrong at once.
func parse(getenv func(string) string) (s settings) {
	var errs []error
	switch v := strings.ToLower(strings.TrimSpace(getenv(varAnswerHooks))); v {
	case "", "true", "yes":
		s.answerHooks = true
	case "false", "no":
	default: // whose the hooks are is not known: they are left alone
		errs = append(errs, fmt.Errorf("%s: %q is neither true nor false", varAnswerHooks, v))
	}
	var err error
	s.workers, err = workereni.Parse(getenv)
	errs = append(errs, err)
	s.drain, err = drain.Parse(getenv)
	s.err = errors.Join(append(errs, err)...)
	return s
}
