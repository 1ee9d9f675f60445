// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/kube"
	"github.com/multus-vpc/multus-vpc/internal/kubeinject"
)

// whoWritesSecond, with a version that is not the last any more, changes nothing and hears of it; so replicas agree.
func whoWritesSecond(t *testing.T, c *cluster, kubeconfig string) {
	access, err := kube.Config{Kubeconfig: kubeconfig}.Access()
	c.must(err)
	client, err := kubeinject.New(access)
	c.must(err)
	secret, configured := client.Secret("multus-vpc", "multus-vpc-injector"), client.Configuration("multus-vpc-injector")

	data, version, err := secret.Load(t.Context())
	c.must(err)
	c.must(secret.Save(t.Context(), map[string][]byte{"note": []byte("first")}, version))
	if err = secret.Save(t.Context(), map[string][]byte{"note": []byte("second")}, version); !errors.Is(err, kubeinject.ErrConflict) {
		t.Errorf("a second write of one version: %v", err)
	}
	after, _, err := secret.Load(t.Context())
	c.must(err)
	if string(after["note"]) != "first" || string(after["tls.crt"]) != string(data["tls.crt"]) {
		t.Errorf("the note is %q, and the certificate has %d bytes", after["note"], len(after["tls.crt"]))
	}

	bundle, version, err := configured.Bundle(t.Context())
	c.must(err)
	c.must(configured.Publish(t.Context(), append(bundle, '\n'), version))
	if err = configured.Publish(t.Context(), nil, version); !errors.Is(err, kubeinject.ErrConflict) {
		t.Errorf("a second publication of one version: %v", err)
	}
	// The API server itself refuses it, should another replica write between our look and our patch.
	stale := []object{{"op": "replace", "path": "/metadata/resourceVersion", "value": version}}
	if err = c.patch(configuration, stale); err == nil || !strings.Contains(err.Error(), "409") {
		t.Errorf("a patch of a version that is not there any more: %v", err)
	}

	for what, missing := range map[string]error{
		"get Secret multus-vpc/another":            second(client.Secret("multus-vpc", "another").Load(t.Context())),
		"get MutatingWebhookConfiguration another": second(client.Configuration("another").Bundle(t.Context())),
	} {
		if missing == nil || !strings.Contains(missing.Error(), what) || !strings.Contains(missing.Error(), "forbidden") {
			t.Errorf("%s: %v", what, missing)
		}
	}
	c.must(c.Do(t.Context(), http.MethodGet, configuration, nil, nil))
}

// second is the error of a call with two results before it.
func second[A, B any](_ A, _ B, err error) error { return err }
