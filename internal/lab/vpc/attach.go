// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"slices"
	"time"
)

// AttachNetworkInterface attaches an ENI to an instance and returns the attachment.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AttachNetworkInterface.html
func (c *Cloud) AttachNetworkInterface(now time.Time, in AttachNetworkInterfaceInput) (out Attachment, failure error) {
	failure = c.change(now, func(tx *change) error {
		e, err := tx.eni(in.NetworkInterfaceID)
		if err != nil {
			return err
		}
		i, err := tx.instance(in.InstanceID)
		if err != nil {
			return err
		}
		if i.at(tx.now).State != StateRunning {
			// unverified: the wording; the code is documented for an instance in the wrong state.
			return Errorf("IncorrectState", "The instance '%s' is not in a valid state for this operation.", i.ID)
		}
		card := 0
		if in.NetworkCardIndex != nil {
			card = *in.NetworkCardIndex
		}
		if in.NetworkCardIndex == nil && tx.indexTakenOnAnyCard(i.ID, in.DeviceIndex) {
			// On a multi-card instance a request without card index is refused though the index is free on card 0:
			// https://github.com/cilium/cilium/pull/42512
			return errIndexTaken(i.ID, in.DeviceIndex)
		}
		e, err = tx.attach(e, i, card, in.DeviceIndex, false)
		if err != nil {
			return err
		}
		out = *e.Attachment
		return nil
	})
	if failure != nil {
		return Attachment{}, failure
	}
	return out, nil
}

// attach puts e into the instance, or says why it does not fit.
func (tx *change) attach(e ENI, i Instance, card, index int, deleteOnTermination bool) (ENI, error) {
	t, _ := LookupInstanceType(i.Type)
	if e.Attachment != nil {
		// https://github.com/hashicorp/terraform-provider-aws/issues/27513
		return ENI{}, Errorf("InvalidNetworkInterface.InUse", "Interface: [%s] in use.", e.ID)
	}
	if e.AZ != i.AZ {
		// "must be in the same Availability Zone": https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-eni.html.
		// Code and wording as users report them.
		return ENI{}, errCombination(
			"You may not attach a network interface to an instance if they are not in the same availability zone")
	}
	if card < 0 || card >= t.NetworkCards {
		// unverified: code and wording.
		return ENI{}, InvalidValue("Network card index %d is not valid for instance type %s.", card, t.Name)
	}
	if index < 0 {
		return ENI{}, InvalidValue("Invalid value '%d' for DeviceIndex.", index)
	}
	others, onCard := tx.attachedTo(i.ID), 0
	for _, o := range others {
		if o.Attachment.NetworkCard != card {
			continue
		}
		onCard++
		if o.Attachment.DeviceIndex == index {
			return ENI{}, errIndexTaken(i.ID, index)
		}
	}
	if len(others)+1 > t.Interfaces() || onCard+1 > t.InterfacesPerCard {
		// https://github.com/cilium/cilium/issues/15877; unverified: that a full card is worded alike.
		return ENI{}, Errorf("AttachmentLimitExceeded", "Interface count %d exceeds the limit for %s", len(others)+1, t.Name)
	}
	if len(e.IPv4())+len(e.Prefixes) > t.IPv4PerInterface {
		return ENI{}, errAddressLimit() // unverified: that the ENI is refused, and how
	}
	if len(e.IPv6)+len(e.IPv6Prefixes) > t.IPv6PerInterface() {
		return ENI{}, errIPv6Limit() // unverified, as above
	}
	e.Attachment = &Attachment{
		ID: tx.newID("eni-attach"), InstanceID: i.ID, NetworkCard: card, DeviceIndex: index,
		DeleteOnTermination: deleteOnTermination, AttachTime: tx.stamp(),
	}
	return e, tx.putENI(e)
}

func (tx *change) indexTakenOnAnyCard(instanceID string, index int) bool {
	return slices.ContainsFunc(tx.attachedTo(instanceID), func(e ENI) bool { return e.Attachment.DeviceIndex == index })
}

// https://github.com/hashicorp/terraform-provider-aws/pull/906
func errIndexTaken(instanceID string, index int) *APIError {
	return InvalidValue("Instance '%s' already has an interface attached at device index '%d'.", instanceID, index)
}

// unverified: the wording.
func errAttachmentNotFound(id string) *APIError {
	return Errorf("InvalidAttachmentID.NotFound", "The attachment ID '%s' does not exist", id)
}

// DetachNetworkInterface detaches an ENI; its addresses stay with it.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DetachNetworkInterface.html
func (c *Cloud) DetachNetworkInterface(now time.Time, attachmentID string) error {
	return c.change(now, func(tx *change) error {
		for e := range tx.each() {
			if e.Attachment == nil || e.Attachment.ID != attachmentID {
				continue
			}
			if e.Attachment.IsPrimary() {
				// "You can't detach a primary network interface": https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-eni.html.
				// Users report this wording; unverified: that no network card index stands in it today.
				return Errorf("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
			}
			e.Attachment = nil
			return tx.putENI(e)
		}
		return errAttachmentNotFound(attachmentID)
	})
}
