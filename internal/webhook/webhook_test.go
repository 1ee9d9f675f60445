// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
)

// request is a review as an API server sends it.
const request = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"705ab4f5",
	"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},
	"namespace":"core","operation":"CREATE","object":{"metadata":{"name":"upf"}},"dryRun":false}}`

// reviewer answers the same to every pod, and notes what it was asked.
type reviewer struct {
	answer Answer
	err    error
	asked  []string
}

func (r *reviewer) review(_ context.Context, namespace string, pod []byte) (Answer, error) {
	r.asked = append(r.asked, namespace+" "+string(pod))
	return r.answer, r.err
}

// post sends a body, and returns what came of it.
func post(t testing.TB, r *reviewer, method, contentType, body string) (*httptest.ResponseRecorder, Result) {
	t.Helper()
	var result Result
	h := &Handler{Review: r.review, Log: slog.New(slog.DiscardHandler), Observe: func(got Result, _ string, _ time.Duration) { result = got }}
	req := httptest.NewRequestWithContext(t.Context(), method, "/inject", strings.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w, result
}

func TestAnswers(t *testing.T) {
	const envelope = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"705ab4f5","allowed":`
	tests := map[string]struct {
		body   string
		answer Answer
		want   string
		result Result
	}{
		"nothing to do":     {request, Answer{}, envelope + `true}}`, Unchanged},
		"a patch":           {request, Answer{Patch: []map[string]string{{"op": "add"}}}, envelope + `true,"patch":"W3sib3AiOiJhZGQifV0=","patchType":"JSONPatch"}}`, Patched},
		"a warning":         {request, Answer{Warnings: []string{"look"}}, envelope + `true,"warnings":["look"]}}`, Unchanged},
		"a refusal":         {request, Answer{Refused: errors.New("no"), Patch: 1}, envelope + `false,"status":{"metadata":{},"status":"Failure","message":"no","reason":"Forbidden","code":403}}}`, Refused},
		"no pod":            {strings.Replace(request, `"kind":"Pod"`, `"kind":"Node"`, 1), Answer{Patch: 1}, envelope + `true}}`, Unchanged},
		"no creation":       {strings.Replace(request, "CREATE", "UPDATE", 1), Answer{Patch: 1}, envelope + `true}}`, Unchanged},
		"no pod as a whole": {strings.Replace(request, `"operation"`, `"subResource":"ephemeralcontainers","operation"`, 1), Answer{Patch: 1}, envelope + `true}}`, Unchanged},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w, result := post(t, &reviewer{answer: tt.answer}, http.MethodPost, "application/json; charset=utf-8", tt.body)
			if diff := cmp.Diff(tt.want, strings.TrimSpace(w.Body.String())); diff != "" || w.Code != http.StatusOK || result != tt.result {
				t.Errorf("%d, %s\n%s", w.Code, result, diff)
			}
		})
	}
}

func TestThePodIsHandedOnAsItCame(t *testing.T) {
	r := &reviewer{}
	post(t, r, http.MethodPost, "application/json", request)
	if diff := cmp.Diff([]string{`core {"metadata":{"name":"upf"}}`}, r.asked); diff != "" {
		t.Error(diff)
	}
}

// TestErrorsAreLeftToTheFailurePolicy: an API server takes a status other than 200 for a call that failed.
func TestErrorsAreLeftToTheFailurePolicy(t *testing.T) {
	tests := map[string]struct {
		method, contentType, body string
		reviewer                  reviewer
		code                      int
		result                    Result
	}{
		"nothing decided": {http.MethodPost, "application/json", request, reviewer{err: errors.New("no API")}, http.StatusInternalServerError, Failed},
		"no patch at all": {http.MethodPost, "application/json", request, reviewer{answer: Answer{Patch: func() {}}}, http.StatusInternalServerError, Failed},
		"a GET":           {http.MethodGet, "application/json", "", reviewer{}, http.StatusMethodNotAllowed, Malformed},
		"YAML":            {http.MethodPost, "application/yaml", "a: b", reviewer{}, http.StatusUnsupportedMediaType, Malformed},
		"no JSON":         {http.MethodPost, "application/json", "{", reviewer{}, http.StatusBadRequest, Malformed},
		"no request":      {http.MethodPost, "application/json", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, reviewer{}, http.StatusBadRequest, Malformed},
		"v1beta1":         {http.MethodPost, "application/json", strings.Replace(request, "io/v1", "io/v1beta1", 1), reviewer{}, http.StatusBadRequest, Malformed},
		"too large":       {http.MethodPost, "application/json", strings.Repeat(" ", maxRequest+1), reviewer{}, http.StatusRequestEntityTooLarge, Malformed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w, result := post(t, &tt.reviewer, tt.method, tt.contentType, tt.body)
			if w.Code != tt.code || result != tt.result {
				t.Errorf("%d %s, %s; want %d, %s", w.Code, w.Body, result, tt.code, tt.result)
			}
		})
	}
}

func FuzzServeHTTP(f *testing.F) {
	f.Add(request)
	f.Add(strings.Replace(request, "CREATE", "DELETE", 1))
	f.Add(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}`)
	f.Add("null")
	f.Fuzz(func(t *testing.T, body string) {
		r := &reviewer{answer: Answer{Patch: []int{}}}
		w, result := post(t, r, http.MethodPost, "application/json", body)
		if w.Code != http.StatusOK {
			if result != Malformed || len(r.asked) > 0 {
				t.Errorf("%d %s after %d questions", w.Code, result, len(r.asked))
			}
			return
		}
		var in, out admissionv1.AdmissionReview
		if err := errors.Join(json.Unmarshal([]byte(body), &in), json.Unmarshal(w.Body.Bytes(), &out)); err != nil {
			t.Fatal(err)
		}
		if out.Response == nil || !out.Response.Allowed || out.Response.UID != in.Request.UID || out.Request != nil {
			t.Errorf("answered %s", w.Body)
		}
		if (result == Patched) != (len(r.asked) == 1) {
			t.Errorf("%s after %d questions", result, len(r.asked))
		}
	})
}
