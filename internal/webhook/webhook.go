// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package webhook speaks the admission protocol: an API server posts a pod that is being made, and gets a JSON patch, a refusal
// or an error back, over HTTPS. The injector serves it. A request that is no pod being created is allowed as it is; an error
// leaves the decision to the webhook configuration's failurePolicy. What becomes of a pod does not belong here.
package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxRequest is above the 3 MiB that an API server takes for an object, which stands in a review with the options beside it.
const maxRequest = 8 << 20

// Review decides about a pod, as it was sent, in a namespace. The error says that nothing could be decided.
type Review func(ctx context.Context, namespace string, pod []byte) (Answer, error)

// Answer is a decision.
type Answer struct {
	Mode     string // what the pod gets, for logs and metrics
	Patch    any    // marshals to a JSON patch; nil leaves the pod as it is
	Warnings []string
	Refused  error // the pod must not be, and why
}

// Result is what became of a request.
type Result string

// The results.
const (
	Patched   Result = "patched"
	Unchanged Result = "unchanged"
	Refused   Result = "refused"
	Failed    Result = "failed"    // nothing was decided
	Malformed Result = "malformed" // no review of ours
)

// Results lists them all.
func Results() []Result { return []Result{Patched, Unchanged, Refused, Failed, Malformed} }

// Handler answers reviews. Observe, which may be nil, hears of each.
type Handler struct {
	Review  Review
	Log     *slog.Logger
	Observe func(result Result, mode string, took time.Duration)
}

// ServeHTTP implements [http.Handler].
// https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-request-and-response
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	result, mode := h.serve(w, r)
	if h.Observe != nil {
		h.Observe(result, mode, time.Since(began))
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) (Result, string) {
	review, code, err := read(w, r)
	if err != nil {
		http.Error(w, err.Error(), code)
		return Malformed, ""
	}
	req := review.Request
	log := h.Log.With("namespace", req.Namespace, "pod", req.Name, "uid", req.UID, "dryRun", req.DryRun != nil && *req.DryRun)
	response := &admissionv1.AdmissionResponse{UID: req.UID, Allowed: true}
	var answer Answer
	if isNewPod(req) {
		if answer, err = h.Review(r.Context(), req.Namespace, req.Object.Raw); err != nil {
			log.Error("nothing decided", "error", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return Failed, answer.Mode
		}
	}
	result, err := fill(response, answer)
	if err != nil {
		log.Error("no answer", "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return Failed, answer.Mode
	}
	switch result {
	case Refused:
		log.Info("pod refused", "mode", answer.Mode, "reason", answer.Refused)
	case Patched:
		log.Info("pod patched", "mode", answer.Mode)
	}
	w.Header().Set("Content-Type", "application/json")
	body := admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Warn("the API server did not take the answer", "error", err)
	}
	return result, answer.Mode
}

// read takes in one review; the code goes with the error.
func read(w http.ResponseWriter, r *http.Request) (*admissionv1.AdmissionReview, int, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, http.StatusMethodNotAllowed, errors.New("post an AdmissionReview")
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("content type %q is not application/json", r.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, http.StatusRequestEntityTooLarge, err
	}
	if err != nil {
		return nil, http.StatusBadRequest, err
	}
	var review admissionv1.AdmissionReview
	if err = json.Unmarshal(body, &review); err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("read the AdmissionReview: %w", err)
	}
	if want := admissionv1.SchemeGroupVersion.String(); review.APIVersion != want || review.Kind != "AdmissionReview" || review.Request == nil {
		return nil, http.StatusBadRequest, fmt.Errorf("want an AdmissionReview of %s with a request, not %s of %s", want, review.Kind, review.APIVersion)
	}
	return &review, 0, nil
}

// isNewPod reports whether the request is one that the webhook configuration is to send.
func isNewPod(r *admissionv1.AdmissionRequest) bool {
	return r.Operation == admissionv1.Create && r.SubResource == "" && r.Kind == metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
}

// fill writes a decision into a response.
func fill(to *admissionv1.AdmissionResponse, a Answer) (Result, error) {
	to.Warnings = a.Warnings
	if a.Refused != nil {
		to.Allowed = false
		to.Result = &metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: a.Refused.Error(),
		}
		return Refused, nil
	}
	if a.Patch == nil {
		return Unchanged, nil
	}
	patch, err := json.Marshal(a.Patch)
	if err != nil {
		return Failed, fmt.Errorf("marshal the patch: %w", err)
	}
	kind := admissionv1.PatchTypeJSONPatch
	to.Patch, to.PatchType = patch, &kind
	return Patched, nil
}
