// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package front

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/lab/strictyaml"
)

// Call identifies calls that are counted together.
type Call struct {
	Action string `json:"action"`
	// Caller is the access key ID of the request's signature, or what [Config.Caller] makes of it.
	Caller string `json:"caller"`
	// Result is "ok", the EC2 error code, "lost-reply" (took effect, and the caller was not told) or "client-gone" (the
	// caller hung up before the request took effect).
	Result string `json:"result"`
}

// Results that are not EC2 error codes.
const (
	resultOK         = "ok"
	resultLostReply  = string(LostReply)
	resultClientGone = "client-gone"
)

// CallCount is a line of the call log.
type CallCount struct {
	Call
	Count int `json:"count"`
}

type callLog map[Call]int

// Calls is the call log so far, sorted by action, caller and result.
func (f *Front) Calls() []CallCount {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := make([]CallCount, 0, len(f.calls))
	for c, n := range f.calls {
		log = append(log, CallCount{c, n})
	}
	slices.SortFunc(log, func(a, b CallCount) int {
		return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Result, b.Result))
	})
	return log
}

// lab answers the requests about the endpoint itself, which meet no weather and are not counted:
//
//	GET  /_lab/calls   {"calls": [{"action", "caller", "result", "count"}, …]} as [Front.Calls]
//	POST /_lab/faults  a list of faults in YAML or JSON, as `ec2.faults` of a scenario, replaces all faults (so [] ends
//	                   them); answers {"faults": how many}, or status 400 and {"problems": [{"path", "text"}, …]}
func (f *Front) lab(path string, r *http.Request) *reply {
	switch r.Method + " " + path {
	case "GET calls":
		return jsonReply(http.StatusOK, map[string]any{"calls": f.Calls()})
	case "POST faults":
		return f.postFaults(r)
	}
	return jsonReply(http.StatusNotFound, problems("no such request; there are GET /_lab/calls and POST /_lab/faults"))
}

func (f *Front) postFaults(r *http.Request) *reply {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return jsonReply(http.StatusBadRequest, problems(err.Error()))
	}
	var faults []Fault
	var p strictyaml.Problems
	strictyaml.Decode(body, &faults, "faults", &p)
	ValidateFaults(faults, "faults", f.config.Actions, &p)
	if wrong, ok := errors.AsType[*strictyaml.Error](p.Err()); ok {
		return jsonReply(http.StatusBadRequest, map[string]any{"problems": wrong.Problems})
	}
	f.arm(faults)
	return jsonReply(http.StatusOK, map[string]any{"faults": len(faults)})
}

func problems(text string) map[string]any {
	return map[string]any{"problems": []strictyaml.Problem{{Text: text}}}
}

func jsonReply(status int, v any) *reply {
	a := newReply()
	a.status = status
	a.header.Set("Content-Type", "application/json")
	if err := json.NewEncoder(&a.body).Encode(v); err != nil {
		panic(err) // maps of strings and numbers always encode
	}
	return a
}
