// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package eni

import "testing"

func TestSameCluster(t *testing.T) {
	type tags = map[string]string
	cni := func(name string) tags { return tags{"cluster.k8s.amazonaws.com/name": name} }
	owned := func(name string) tags { return tags{"kubernetes.io/cluster/" + name: "owned", "Name": "worker"} }
	tests := []struct {
		name        string
		ours, other tags
		want        bool
	}{
		{"untagged", nil, nil, true},
		{"ours names none", tags{"Name": "worker"}, cni("core"), true},
		{"the other names none", cni("core"), tags{"Name": "worker"}, false},
		{"the same", cni("core"), cni("core"), true},
		{"the same by another tag", owned("core"), cni("core"), true},
		{"another", cni("core"), cni("edge"), false},
		{"another by the other tag", cni("core"), owned("edge"), false},
	}
	for _, tt := range tests {
		if got := SameCluster(tt.ours, tt.other); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}
