// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/plainjson"
)

// encode writes what json.Marshal would, field by field: see [plainjson].
func encode(req Request) []byte {
	var w plainjson.Writer
	w.Open('{')
	w.Key("version")
	w.Int(int64(req.Version))
	text(&w, "method", string(req.Method))
	number(&w, "timeoutMillis", req.TimeoutMillis)
	if req.Attachment != nil {
		w.Key("attachment")
		encodeAttachment(&w, req.Attachment)
	}
	if req.Query != nil {
		w.Key("query")
		encodeQuery(&w, req.Query)
	}
	text(&w, "interface", req.Interface)
	list(&w, "addresses", req.Addresses, func(p netip.Prefix) { w.Text(p) })
	text(&w, "onConflict", string(req.OnConflict))
	text(&w, "network", req.Network)
	list(&w, "valid", req.Valid, func(k attachment.Key) {
		w.Open('{')
		encodeKey(&w, k)
		w.Close('}')
	})
	w.Close('}')
	return w.Bytes()
}

func encodeKey(w *plainjson.Writer, k attachment.Key) {
	text(w, "containerID", k.ContainerID)
	text(w, "ifName", k.IfName)
}

func encodeAttachment(w *plainjson.Writer, a *attachment.Attachment) {
	w.Open('{')
	encodeKey(w, a.Key)
	text(w, "network", a.Network)
	w.Key("pod")
	w.Open('{')
	text(w, "namespace", a.Pod.Namespace)
	text(w, "name", a.Pod.Name)
	text(w, "uid", a.Pod.UID)
	w.Close('}')
	w.Key("netns")
	w.Open('{')
	text(w, "path", a.Netns.Path)
	identity(w, "cookie", a.Netns.Cookie)
	identity(w, "device", a.Netns.Device)
	identity(w, "inode", a.Netns.Inode)
	w.Close('}')
	w.Close('}')
}

func encodeQuery(w *plainjson.Writer, q *attachment.Query) {
	w.Open('{')
	w.Key("selector")
	encodeSelector(w, q.Selector)
	list(w, "families", q.Families, w.String)
	text(w, "source", q.Source)
	if q.NeedLink {
		w.Key("needLink")
		w.Bool(true)
	}
	tags(w, "reservationTags", q.ReservationTags)
	rangeText := func(r attachment.Range) { w.String(r.String()) }
	list(w, "ranges", q.Ranges, rangeText)
	list(w, "exclude", q.Exclude, rangeText)
	list(w, "requested", q.Requested, func(a netip.Addr) { w.Text(a) })
	if q.Sticky != nil {
		w.Key("sticky")
		w.Open('{')
		text(w, "statefulSet", q.Sticky.StatefulSet)
		w.Close('}')
	}
	list(w, "floating", q.Floating, rangeText)
	w.Close('}')
}

func encodeSelector(w *plainjson.Writer, s eni.Selector) {
	w.Open('{')
	if s.DeviceIndex != nil {
		w.Key("deviceIndex")
		w.Int(int64(*s.DeviceIndex))
	}
	if s.NetworkCard != nil {
		w.Key("networkCard")
		w.Int(int64(*s.NetworkCard))
	}
	text(w, "subnetID", string(s.SubnetID))
	tags(w, "subnetTags", s.SubnetTags)
	text(w, "mac", string(s.MAC))
	w.Close('}')
}

// text, number, identity, list and tags write a member unless it is empty.
func text(w *plainjson.Writer, key, value string) {
	if value != "" {
		w.Key(key)
		w.String(value)
	}
}

func number(w *plainjson.Writer, key string, value int64) {
	if value != 0 {
		w.Key(key)
		w.Int(value)
	}
}

func identity(w *plainjson.Writer, key string, value uint64) {
	if value != 0 {
		w.Key(key)
		w.Uint(value)
	}
}

func list[T any](w *plainjson.Writer, key string, values []T, write func(T)) {
	if len(values) == 0 {
		return
	}
	w.Key(key)
	w.Open('[')
	for _, v := range values {
		write(v)
	}
	w.Close(']')
}

func tags(w *plainjson.Writer, key string, values map[string]string) {
	if len(values) == 0 {
		return
	}
	w.Key(key)
	w.Open('{')
	for _, k := range slices.Sorted(maps.Keys(values)) {
		w.Key(k)
		w.String(values[k])
	}
	w.Close('}')
}

// receive reads one JSON value of at most maxResponse bytes. The agent ends it with a line feed and waits.
func receive(r io.Reader) ([]byte, error) {
	message := make([]byte, 0, 4096)
	for len(message) < maxResponse {
		message = slices.Grow(message, 512)
		n, err := r.Read(message[len(message):cap(message)])
		message = message[:len(message)+n]
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case err != nil && len(bytes.TrimSpace(message)) == 0:
			return nil, io.EOF
		case err == nil && !bytes.HasSuffix(message, []byte("\n")):
			continue
		case json.Valid(message):
			return message, nil
		}
		var any json.RawMessage
		wrong := json.Unmarshal(message, &any)
		if s, ok := errors.AsType[*json.SyntaxError](wrong); ok && s.Offset < int64(len(bytes.TrimSpace(message))) {
			return nil, wrong
		}
		if err != nil {
			return nil, io.ErrUnexpectedEOF
		}
	}
	return nil, fmt.Errorf("more than %d bytes", maxResponse)
}

// decode reads valid JSON: what answers an ADD or DEL field by field, everything else as json.Unmarshal does.
func decode(message []byte) (resp Response, err error) {
	if decodePlain(message, &resp) {
		return resp, nil
	}
	resp = Response{}
	err = json.Unmarshal(message, &resp)
	return resp, err
}

// decodePlain reports whether the response is one that it knows in full.
func decodePlain(message []byte, resp *Response) (ok bool) {
	return members(message, func(key string, v []byte) bool {
		switch key {
		case "version":
			resp.Version, ok = plainjson.Int(v)
			return ok
		case "add":
			if resp.Add == nil {
				resp.Add = &AddReply{}
			}
			return members(v, resp.Add.decode)
		}
		return false
	})
}

func (r *AddReply) decode(key string, v []byte) (ok bool) {
	switch key {
	case "eni":
		return members(v, r.ENI.decode)
	case "addresses":
		r.Addresses, ok = prefixes(v)
	}
	return ok
}

func (e *ENI) decode(key string, v []byte) (ok bool) {
	s, isText := plainjson.String(v)
	n, isNumber := plainjson.Int(v)
	switch key {
	case "id":
		e.ID, ok = eni.ID(s), isText
	case "mac":
		e.MAC, ok = eni.MAC(s), isText
	case "networkCard":
		e.NetworkCard, ok = n, isNumber
	case "deviceIndex":
		e.DeviceIndex, ok = n, isNumber
	case "subnetID":
		e.SubnetID, ok = eni.SubnetID(s), isText
	case "subnetIPv4":
		var err error
		e.SubnetIPv4, err = netip.ParsePrefix(s)
		ok = err == nil
	case "subnetIPv6":
		e.SubnetIPv6, ok = prefixes(v)
	case "link":
		return members(v, func(key string, v []byte) bool { return decodeLink(&e.Link, key, v) })
	}
	return ok
}

func decodeLink(l *attachment.Link, key string, v []byte) (ok bool) {
	switch key {
	case "name":
		l.Name, ok = plainjson.String(v)
	case "index":
		l.Index, ok = plainjson.Int(v)
	case "mtu":
		l.MTU, ok = plainjson.Int(v)
	case "mac":
		var s string
		s, ok = plainjson.String(v)
		l.MAC = eni.MAC(s)
	case "up":
		l.Up = string(v) == "true"
		ok = l.Up || string(v) == "false"
	}
	return ok
}

// members calls read for each member of an object until it says no; the result is whether it never did.
func members(object []byte, read func(key string, v []byte) bool) bool {
	list, ok := plainjson.Object(object)
	for _, m := range list {
		ok = ok && read(m.Key, m.Value)
	}
	return ok
}

func prefixes(array []byte) ([]netip.Prefix, bool) {
	elements, ok := plainjson.Array(array)
	list := make([]netip.Prefix, len(elements))
	for i, v := range elements {
		s, _ := plainjson.String(v)
		p, err := netip.ParsePrefix(s)
		if list[i] = p; err != nil {
			return nil, false
		}
	}
	return list, ok
}
