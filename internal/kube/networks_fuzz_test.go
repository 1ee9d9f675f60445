// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
)

// statusSeeds are network-status annotations, and how many addresses each says.
func statusSeeds() map[string]int {
	return map[string]int{
		`[{"name":"aws-cni","interface":"eth0","ips":["10.10.12.80"],"default":true},{"interface":"net1","ips":["10.10.1.80","2001:db8::80/64"]}]`: 3,
		`[{"interface":"net1","ips":["ten",null,""]}]`: 0,
		`[{"ips":["10.10.1.80"]}]`:                     1,
		`[{"ips":"10.10.1.80"}]`:                       0,
		`[null]`:                                       0,
		`{"interface":"net1"}`:                         0,
		`[`:                                            0,
		``:                                             0,
	}
}

func read(text string) (n PodNetworks, addrs int) {
	n, _ = networksOf(metav1.ObjectMeta{Namespace: "core", Name: "a", Annotations: map[string]string{cluster.AnnotationNetworkStatus: text}})
	for _, as := range n.Addrs {
		addrs += len(as)
	}
	return n, addrs
}

func TestSeedsOfNetworkStatus(t *testing.T) {
	for text, want := range statusSeeds() {
		if _, addrs := read(text); addrs != want {
			t.Errorf("%s: %d addresses, want %d", text, addrs, want)
		}
	}
	going := metav1.ObjectMeta{Annotations: map[string]string{cluster.AnnotationNetworkStatus: `[]`}, DeletionTimestamp: &metav1.Time{Time: time.Unix(1, 0)}}
	if _, ok := networksOf(going); ok {
		t.Error("a pod that is being deleted vouches for something")
	}
}

// FuzzNetworkStatus: whatever an annotation says, what is read of it are addresses, and the first interface's are among them.
func FuzzNetworkStatus(f *testing.F) {
	for text := range statusSeeds() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, _ := read(text)
		for name, as := range n.Addrs {
			for _, a := range as {
				if !a.IsValid() || a.Is4In6() {
					t.Errorf("%q: %s has %v", text, name, a)
				}
			}
		}
		for _, a := range n.Default {
			found := false
			for _, as := range n.Addrs {
				found = found || slices.Contains(as, a)
			}
			if !found {
				t.Errorf("%q: the first interface's %s is on none", text, a)
			}
		}
	})
}
