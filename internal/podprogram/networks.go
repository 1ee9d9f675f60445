// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"github.com/multus-vpc/multus-vpc/internal/podsync"
	"github.com/multus-vpc/multus-vpc/internal/selection"
)

// promised are the interfaces that Multus gives a pod with this annotation.
func promised(annotation string) (podsync.Promise, error) {
	networks, err := selection.Parse(annotation)
	if err != nil {
		return nil, err
	}
	var names podsync.Promise
	for _, n := range networks {
		names = append(names, n.Interface)
	}
	return names, nil
}
