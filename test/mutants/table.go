// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

// mutant is one fault: in file, the text old, which occurs once, becomes new. It must be noticed by the demo, or by a
// test of a package when one is named, at a line that contains noticed.
type mutant struct {
	name      string
	file      string
	old, new  string
	pkg, test string
	noticed   string
}

// table has the faults that would hurt a cluster most, and first the story without any.
var table = []mutant{
	{name: "no-fault"},
	{
		name:    "never-assigns",
		file:    "internal/pool/worker.go",
		old:     "return p.n.ports.EC2.Assign(ctx, p.id, addrsOf(us), reassign)",
		new:     "return nil",
		noticed: "first pod c",
	},
	{
		name: "assigns-on-the-other-eni",
		file: "internal/pool/worker.go",
		old:  "	return p.n.ports.EC2.Assign(ctx, p.id, addrsOf(us), reassign)\n",
		new: `	other := p.id
	p.n.mu.Lock()
	for id, q := range p.n.ifaces {
		if id != p.id && !q.eni.IsPrimary() {
			other = id
		}
	}
	p.n.mu.Unlock()
	return p.n.ports.EC2.Assign(ctx, other, addrsOf(us), reassign)
`,
		noticed: "first pod c",
	},
	{
		name:    "hands-out-before-ec2-confirmed",
		file:    "internal/pool/grow.go",
		old:     "	case err == nil:\n		return // assigning until a read shows them\n",
		new:     "	case err == nil:\n		p.seen(us)\n		return\n",
		noticed: "c reaches the gateway as soon as ADD has returned",
	},
	{
		name:    "reuses-an-address-in-cooldown",
		file:    "internal/ownership/ownership.go",
		old:     "{Held, Release}:     {Cooling, StartCooldown},",
		new:     "{Held, Release}:     {Free, Stock},",
		noticed: "pod d is deleted: its address cools",
	},
	{
		name:    "frees-on-an-error-without-reading-back",
		file:    "internal/ownership/ownership.go",
		old:     "{Assigning, ReplyLost}: {Unknown, ReadBack},",
		new:     "{Assigning, ReplyLost}: {Free, Stock},",
		pkg:     "./internal/pool",
		test:    "TestLostReply",
		noticed: "--- FAIL: TestLostReply",
	},
	{
		name:    "registers-nothing",
		file:    "internal/podsync/family.go",
		old:     "		assign:   d.ec2.Assign,\n",
		new:     "		assign:   func(context.Context, eni.ID, []netip.Addr, bool) error { return nil },\n",
		noticed: "an init container in a and in b",
	},
	{
		name:    "takes-no-floating-address",
		file:    "internal/podsync/podsync.go",
		old:     "		return attachment.Reassign\n",
		new:     "		return attachment.Never\n",
		noticed: "a gives it up and b takes it",
	},
	{
		name:    "claims-again-what-is-contested",
		file:    "internal/podsync/calls.go",
		old:     "	e.state, e.ours, e.err = Contested, false,",
		new:     "	e.state, e.ours, e.err = Pending, false,",
		pkg:     "./internal/podsync",
		test:    "TestSplitBrainSettles",
		noticed: "--- FAIL: TestSplitBrainSettles",
	},
	{
		name:    "lets-an-older-claim-wait",
		file:    "internal/podsync/syncer.go",
		old:     "	if e.busy && e.abandon != nil {",
		new:     "	if e.busy && e.abandon == nil {",
		pkg:     "./internal/podsync",
		test:    "TestAddressThatComesBackWaitsForNoOlderClaim",
		noticed: "not within 8s: a has it again",
	},
	{
		name:    "makes-enis-without-the-users-tags",
		file:    "internal/workereni/run.go",
		old:     "	maps.Copy(tags, c.Tags)\n",
		new:     "	maps.Copy(tags, map[string]string{})\n",
		pkg:     "./test/workers",
		test:    "TestTheStoryHolds",
		noticed: "✗ each has exactly the planned ENIs",
	},
	{
		name:    "sweeps-enis-of-living-workers",
		file:    "internal/workereni/terminate.go",
		old:     "		if !w.Gone() {\n",
		new:     "		if w.Gone() {\n",
		pkg:     "./test/workers",
		test:    "TestTheStoryHolds",
		noticed: "✗ and leaves alone",
	},
}
