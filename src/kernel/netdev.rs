//! What a driver says it can do with XDP, by the generic netlink family `netdev`, which Linux has since 6.3.
//!
//! Generic netlink families have no fixed numbers: the first request asks the controller for the family's, the second
//! asks the family.
//!
//! Source: `Documentation/netlink/specs/netdev.yaml`, `include/uapi/linux/netdev.h`, `include/uapi/linux/genetlink.h`.

#![forbid(unsafe_code)]

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, Nla,
    NlasIterator, Parseable,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use serde::Serialize;

use super::netlink::Netlink;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_ZC_MAX_SEGS: u16 = 4;
const NETDEV_A_DEV_XDP_RX_METADATA_FEATURES: u16 = 5;
const NETDEV_A_DEV_XSK_FEATURES: u16 = 6;

/// `enum netdev_xdp_act`.
mod act {
    pub(super) const BASIC: u64 = 1;
    pub(super) const REDIRECT: u64 = 1 << 1;
    pub(super) const NDO_XMIT: u64 = 1 << 2;
    pub(super) const XSK_ZEROCOPY: u64 = 1 << 3;
    pub(super) const HW_OFFLOAD: u64 = 1 << 4;
    pub(super) const RX_SG: u64 = 1 << 5;
    pub(super) const NDO_XMIT_SG: u64 = 1 << 6;
}

/// `enum netdev_xdp_rx_metadata`, in the order of its bits.
const RX_METADATA: [&str; 3] = ["timestamp", "hash", "vlan-tag"];
/// `enum netdev_xsk_flags`, in the order of its bits.
const TX_METADATA: [&str; 3] = ["timestamp", "checksum", "launch-time"];

/// What a driver says it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DriverFeatures {
    /// XDP programs run in the driver (native mode).
    pub native: bool,
    /// They can redirect, which takes packets to AF_XDP sockets.
    pub redirect: bool,
    /// Others can redirect to this driver.
    pub redirect_target: bool,
    /// AF_XDP sockets in zero-copy mode. What a bind comes to can still depend on the device.
    pub zero_copy: bool,
    /// XDP programs run on the NIC.
    pub offload: bool,
    /// XDP programs get packets of several buffers.
    pub multi_buffer: bool,
    /// Others can redirect packets of several buffers to this driver.
    pub multi_buffer_target: bool,
    /// The most buffers a packet can have in zero-copy mode; 1 is one. `None`: the driver or the kernel (before 6.6)
    /// does not say.
    pub zero_copy_buffers: Option<u32>,
    /// What XDP programs can read about a received packet.
    pub rx_metadata: Vec<&'static str>,
    /// What AF_XDP sockets can ask for when they send (Linux 6.8).
    pub tx_metadata: Vec<&'static str>,
}

/// Asks the kernel what the driver of an interface of the calling thread's network namespace can do.
///
/// `None`: this kernel cannot be asked ([`Feature::DriverFeatures`](super::features::Feature::DriverFeatures)).
///
/// # Errors
///
/// The error of the netlink request: `ENODEV` if there is no such interface.
pub fn driver_features(interface_index: u32) -> io::Result<Option<DriverFeatures>> {
    let Some(family) = family("netdev")? else { return Ok(None) };
    let index = DefaultNla::new(NETDEV_A_DEV_IFINDEX, interface_index.to_ne_bytes().to_vec());
    let request = Message { family, command: NETDEV_CMD_DEV_GET, attributes: vec![index] };
    Ok(Some(DriverFeatures::from_attributes(&ask(request)?.attributes)))
}

/// The number of a generic netlink family. `None`: this kernel does not have it.
pub(super) fn family(name: &str) -> io::Result<Option<u16>> {
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    let request = Message {
        family: GENL_ID_CTRL,
        command: CTRL_CMD_GETFAMILY,
        attributes: vec![DefaultNla::new(CTRL_ATTR_FAMILY_NAME, text)],
    };
    match ask(request) {
        Ok(answer) => Ok(number(&answer.attributes, CTRL_ATTR_FAMILY_ID).map(|id| id as u16)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn ask(request: Message) -> io::Result<Message> {
    Netlink::open_protocol(NETLINK_GENERIC)?.get(request)
}

impl DriverFeatures {
    fn from_attributes(attributes: &[DefaultNla]) -> Self {
        let xdp = number(attributes, NETDEV_A_DEV_XDP_FEATURES).unwrap_or_default();
        let has = |bit| xdp & bit != 0;
        let names = |kind, all: &[&'static str]| {
            let bits = number(attributes, kind).unwrap_or_default();
            all.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0).map(|(_, name)| *name).collect()
        };
        let buffers = number(attributes, NETDEV_A_DEV_XDP_ZC_MAX_SEGS);
        Self {
            native: has(act::BASIC),
            redirect: has(act::REDIRECT),
            redirect_target: has(act::NDO_XMIT),
            zero_copy: has(act::XSK_ZEROCOPY),
            offload: has(act::HW_OFFLOAD),
            multi_buffer: has(act::RX_SG),
            multi_buffer_target: has(act::NDO_XMIT_SG),
            zero_copy_buffers: buffers.and_then(|buffers| u32::try_from(buffers).ok()),
            rx_metadata: names(NETDEV_A_DEV_XDP_RX_METADATA_FEATURES, &RX_METADATA),
            tx_metadata: names(NETDEV_A_DEV_XSK_FEATURES, &TX_METADATA),
        }
    }
}

/// The value of an attribute that is a number of two, four or eight bytes.
fn number(attributes: &[DefaultNla], kind: u16) -> Option<u64> {
    let attribute = attributes.iter().find(|attribute| attribute.kind() == kind)?;
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    match *value.as_slice() {
        [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d]).into()),
        _ => Some(u64::from_ne_bytes(value.try_into().ok()?)),
    }
}

/// A generic netlink message of any family: a command, and attributes that are not looked into.
#[derive(Clone, Debug)]
struct Message {
    family: u16,
    command: u8,
    attributes: Vec<DefaultNla>,
}

/// `struct genlmsghdr`: command, version (1 in both families asked here), two bytes reserved.
const HEADER_BYTES: usize = 4;

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&[self.command, 1, 0, 0]);
        self.attributes.as_slice().emit(attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (Some(command), Some(attributes)) = (payload.first(), payload.get(HEADER_BYTES..)) else {
            return Err(DecodeError::from("a generic netlink message without its header"));
        };
        let attributes = NlasIterator::new(attributes)
            .map(|attribute| attribute.and_then(|attribute| DefaultNla::parse(&attribute)))
            .collect::<Result<_, _>>()?;
        Ok(Self { family: header.message_type, command: *command, attributes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_a_nic_are_read() {
        let attributes = [
            DefaultNla::new(NETDEV_A_DEV_IFINDEX, 2u32.to_ne_bytes().to_vec()),
            DefaultNla::new(NETDEV_A_DEV_XDP_FEATURES, 0x2bu64.to_ne_bytes().to_vec()),
            DefaultNla::new(NETDEV_A_DEV_XDP_ZC_MAX_SEGS, 8u32.to_ne_bytes().to_vec()),
            DefaultNla::new(NETDEV_A_DEV_XDP_RX_METADATA_FEATURES, 5u64.to_ne_bytes().to_vec()),
            DefaultNla::new(NETDEV_A_DEV_XSK_FEATURES, 0x82u64.to_ne_bytes().to_vec()),
        ];
        assert_eq!(
            DriverFeatures::from_attributes(&attributes),
            DriverFeatures {
                native: true,
                redirect: true,
                zero_copy: true,
                multi_buffer: true,
                zero_copy_buffers: Some(8),
                rx_metadata: vec!["timestamp", "vlan-tag"],
                tx_metadata: vec!["checksum"],
                ..DriverFeatures::default()
            }
        );
    }

    #[test]
    fn messages_come_back_as_they_went_out() {
        let message =
            Message { family: 30, command: 7, attributes: vec![DefaultNla::new(2, b"netdev\0".to_vec())] };
        let mut bytes = vec![0; NetlinkSerializable::buffer_len(&message)];
        message.serialize(&mut bytes);
        let mut header = NetlinkHeader::default();
        header.message_type = 30;
        let back = Message::deserialize(&header, &bytes).unwrap();
        assert_eq!((back.family, back.command, back.attributes), (30, 7, message.attributes));
        assert!(Message::deserialize(&header, &[1, 1]).is_err());
    }

    #[test]
    fn family_that_does_not_exist_is_no_error() {
        assert_eq!(family("no-such-family").unwrap(), None);
    }
}
