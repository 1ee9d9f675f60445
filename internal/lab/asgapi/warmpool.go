// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package asgapi

import (
	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/query"
)

func putWarmPool(c *call) (any, error) {
	group, w := c.in.Required("AutoScalingGroupName"), autoscaling.WarmPool{MaxPrepared: c.in.Number("MaxGroupPreparedCapacity")}
	if n := c.in.Number("MinSize"); n != nil {
		w.MinSize = *n
	}
	if state := c.in.Text("PoolState"); state != "Running" { // the default is Stopped
		c.in.Wrong("The lab's warm pools have the PoolState Running: its instances cannot be stopped")
	}
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.PutWarmPool(c.now, group, w)
}

func deleteWarmPool(c *call) (any, error) {
	group := c.in.Required("AutoScalingGroupName")
	c.in.Flag("ForceDelete")
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.DeleteWarmPool(c.now, group)
}

type warmPoolXML struct {
	MinSize     int
	MaxPrepared *int `xml:"MaxGroupPreparedCapacity,omitempty"`
	PoolState   string
}

type describeWarmPoolResult struct {
	Configuration *warmPoolXML `xml:"WarmPoolConfiguration,omitempty"`
	Instances     query.List[instanceXML]
	NextToken     string `xml:",omitempty"`
}

func describeWarmPool(c *call) (any, error) {
	name := c.in.Required("AutoScalingGroupName")
	g, ok := c.service.Group(name)
	part, next, err := page(c, g.Warm, 50, 50)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, groupNotFound(name)
	}
	out := describeWarmPoolResult{Instances: query.ListOf(part, instanceOf), NextToken: next}
	if g.Pool != nil {
		out.Configuration = &warmPoolXML{MinSize: g.Pool.MinSize, MaxPrepared: g.Pool.MaxPrepared, PoolState: "Running"}
	}
	return out, nil
}
