//! Which port, with which tag, stands behind the interface that a route leaves by.

use std::{collections::BTreeMap, io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, InfoData, InfoKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags,
        LinkInfo, LinkMessage, VlanProtocol,
    },
};

use super::Unresolved;
use crate::{kernel::netlink::Netlink, packet::MacAddress};

/// How frames leave by an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit<'a> {
    /// Index of the port.
    pub port: u32,
    /// Name of the interface: the port's, or its VLAN interface's.
    pub name: &'a str,
    pub vlan: Option<u16>,
    pub source: MacAddress,
    pub carrier: bool,
    mtu: u32,
    mtu_ipv6: u32,
}

impl Exit<'_> {
    /// The largest layer 3 packet of the address family, in bytes.
    pub fn mtu(&self, destination: IpAddr) -> u32 {
        match destination {
            IpAddr::V4(_) => self.mtu,
            IpAddr::V6(_) => self.mtu_ipv6,
        }
    }
}

/// All interfaces, as far as it matters here, and which of them are ports.
pub(super) struct Links {
    ports: Vec<u32>,
    links: BTreeMap<u32, Facts>,
}

impl Links {
    pub fn new(ports: Vec<u32>) -> Self {
        Self { ports, links: BTreeMap::new() }
    }

    /// Reads all of them anew.
    pub fn read(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let mut request = LinkMessage::default();
        // Counters are not looked at, and make an answer several times as long.
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = netlink.dump(RouteNetlinkMessage::GetLink(request))?;
        self.links.clear();
        for answer in answers {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                self.observe(&message);
            }
        }
        Ok(())
    }

    /// Takes in an interface as it is now, and says whether anything changed that matters here.
    pub fn observe(&mut self, message: &LinkMessage) -> bool {
        // Of a bridge port, a second message comes with family AF_BRIDGE, which says only how it is a port.
        if message.header.interface_family != AddressFamily::Unspec {
            return false;
        }
        let facts = Facts::of(message);
        let before = self.links.insert(message.header.index, facts);
        before.as_ref() != self.links.get(&message.header.index)
    }

    /// Takes in that an interface is gone, and says whether it was known.
    pub fn observe_deleted(&mut self, message: &LinkMessage) -> bool {
        // With family AF_BRIDGE it means that the interface left its bridge.
        message.header.interface_family == AddressFamily::Unspec
            && self.links.remove(&message.header.index).is_some()
    }

    /// How frames leave by the interface `index`, to which the kernel would send by way of the gateway `via`.
    pub fn exit(&self, index: u32, via: Option<IpAddr>) -> Result<Exit<'_>, Unresolved> {
        let Some(link) = self.links.get(&index) else {
            return Err(Unresolved::OtherInterface { name: format!("interface #{index}"), via });
        };
        let other = || Unresolved::OtherInterface { name: link.name.clone(), via };
        let (port, vlan) = if self.ports.contains(&index) {
            (index, None)
        } else if let Some(aggregate) = self.aggregate(index, link) {
            return Err(aggregate);
        } else {
            let (port, vlan) = self.below(link).ok_or_else(other)??;
            (port, Some(vlan))
        };
        let lower = self.links.get(&port).ok_or_else(other)?;
        let source = link.mac.ok_or_else(|| Unresolved::NotEthernet { name: link.name.clone() })?;
        let mtu = link.mtu.min(lower.mtu);
        Ok(Exit {
            port,
            name: &link.name,
            vlan,
            source,
            carrier: link.carrier && lower.carrier,
            mtu,
            mtu_ipv6: link.mtu_ipv6.map_or(mtu, |ipv6| ipv6.min(mtu)),
        })
    }

    /// The port and the tag of a VLAN interface; `None` if it is none, or lies on no port.
    fn below(&self, link: &Facts) -> Option<Result<(u32, u16), Unresolved>> {
        let vlan = link.vlan.as_ref()?;
        let refused = |what, port: u32| {
            let port = self.name(port);
            Some(Err(Unresolved::UnsupportedVlan { name: link.name.clone(), what, port }))
        };
        let lower = vlan.lower?;
        if self.ports.contains(&lower) {
            return match vlan.protocol {
                VlanProtocol::Ieee8021Q => Some(Ok((lower, vlan.id))),
                _ => refused("an 802.1ad VLAN", lower),
            };
        }
        let facts = self.links.get(&lower)?;
        if let Some(Unresolved::Aggregate { kind, port, .. }) = self.aggregate(lower, facts) {
            let (name, kind) = (link.name.clone(), format!("VLAN on the {kind} {}", facts.name));
            return Some(Err(Unresolved::Aggregate { name, kind, port }));
        }
        // A tag inside a tag. Interfaces cannot lie on each other in a circle, and the kernel allows eight levels.
        let port = self.below(facts)?.map(|(port, _)| self.name(port));
        let port = match port {
            Ok(port) | Err(Unresolved::UnsupportedVlan { port, .. }) => port,
            Err(other) => return Some(Err(other)),
        };
        let what = "a VLAN inside another";
        Some(Err(Unresolved::UnsupportedVlan { name: link.name.clone(), what, port }))
    }

    /// If a port is a member of this interface: that it is so.
    fn aggregate(&self, index: u32, link: &Facts) -> Option<Unresolved> {
        let is_member = |port: &&u32| self.links.get(port).is_some_and(|port| port.controller == Some(index));
        let port = self.name(*self.ports.iter().find(is_member)?);
        let kind = link.kind.clone().unwrap_or_else(|| "group".to_owned());
        // The ports of a VRF keep their own addresses and routes.
        (kind != "vrf").then(|| Unresolved::Aggregate { name: link.name.clone(), kind, port })
    }

    fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("#{index}"), |link| link.name.clone())
    }
}

/// What matters of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Facts {
    name: String,
    mac: Option<MacAddress>,
    mtu: u32,
    /// Where it is known, and IPv6 is on: routers can announce a smaller one (RFC 4861, 4.6.4).
    mtu_ipv6: Option<u32>,
    /// Not looked at by itself: the kernel takes the routes of an interface that is set down. So it is a reason to ask
    /// for the routes again.
    up: bool,
    carrier: bool,
    /// The bond, bridge, team or VRF that it is a member of.
    controller: Option<u32>,
    kind: Option<String>,
    vlan: Option<Vlan>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Vlan {
    id: u16,
    protocol: VlanProtocol,
    /// The interface that it lies on, if that is in this network namespace.
    lower: Option<u32>,
}

impl Facts {
    fn of(message: &LinkMessage) -> Self {
        let mut facts = Self {
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
            ..Self::default()
        };
        let (mut lower, mut elsewhere) = (None, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => facts.name.clone_from(name),
                LinkAttribute::Address(bytes) => facts.mac = ethernet(bytes),
                LinkAttribute::Mtu(bytes) => facts.mtu = *bytes,
                LinkAttribute::AfSpecUnspec(families) => facts.mtu_ipv6 = mtu_ipv6(families),
                LinkAttribute::Controller(index) => facts.controller = Some(*index),
                LinkAttribute::Link(index) => lower = Some(*index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::LinkInfo(info) => (facts.kind, facts.vlan) = (kind(info), vlan(info)),
                _ => {}
            }
        }
        if let Some(vlan) = &mut facts.vlan {
            vlan.lower = lower.filter(|_| !elsewhere);
        }
        facts
    }
}

/// A MAC address, if it is one of six bytes that a frame can come from. Loopback has six zeros.
fn ethernet(bytes: &[u8]) -> Option<MacAddress> {
    let octets: [u8; 6] = bytes.try_into().ok()?;
    Some(MacAddress(octets)).filter(|mac| mac.is_unicast())
}

fn mtu_ipv6(families: &[AfSpecUnspec]) -> Option<u32> {
    let ipv6 = families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet6(attributes) => Some(attributes),
        _ => None,
    })?;
    ipv6.iter().find_map(|attribute| match attribute {
        AfSpecInet6::DevConf(conf) => u32::try_from(conf.mtu6).ok().filter(|mtu| *mtu > 0),
        _ => None,
    })
}

fn kind(info: &[LinkInfo]) -> Option<String> {
    info.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

fn vlan(info: &[LinkInfo]) -> Option<Vlan> {
    if !info.contains(&LinkInfo::Kind(InfoKind::Vlan)) {
        return None;
    }
    let data = info.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let id = data.iter().find_map(|data| match data {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })?;
    let protocol = data.iter().find_map(|data| match data {
        InfoVlan::Protocol(protocol) => Some(*protocol),
        _ => None,
    });
    Some(Vlan { id, protocol: protocol.unwrap_or_default(), lower: None })
}

#[cfg(test)]
pub(super) mod tests {
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::link::Inet6DevConf;

    use super::*;

    pub const PORT: u32 = 2;
    pub const PORT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    /// An interface as the kernel describes it: encoded and decoded once, since that is where mistakes would hide.
    pub fn link(index: u32, name: &str, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(1_500),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, index as u8]),
        ];
        message.attributes.extend(attributes);
        let mut packet = NetlinkMessage::from(RouteNetlinkMessage::NewLink(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        match NetlinkMessage::deserialize(&bytes).unwrap().payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    fn info(kind: InfoKind, data: Vec<InfoVlan>) -> LinkAttribute {
        let mut info = vec![LinkInfo::Kind(kind)];
        if !data.is_empty() {
            info.push(LinkInfo::Data(InfoData::Vlan(data)));
        }
        LinkAttribute::LinkInfo(info)
    }

    pub fn vlan(index: u32, name: &str, id: u16, lower: u32) -> LinkMessage {
        vlan_of(VlanProtocol::Ieee8021Q, index, name, id, lower)
    }

    fn vlan_of(protocol: VlanProtocol, index: u32, name: &str, id: u16, lower: u32) -> LinkMessage {
        let data = vec![InfoVlan::Protocol(protocol), InfoVlan::Id(id)];
        link(index, name, vec![LinkAttribute::Link(lower), info(InfoKind::Vlan, data)])
    }

    /// The port `ens1f0`, number 2, and these.
    pub fn links(others: &[LinkMessage]) -> Links {
        let mut links = Links::new(vec![PORT]);
        assert!(links.observe(&link(PORT, "ens1f0", vec![])));
        for other in others {
            assert!(links.observe(other));
        }
        links
    }

    fn refused(links: &Links, index: u32) -> String {
        links.exit(index, None).unwrap_err().to_string()
    }

    #[test]
    fn a_port_is_left_untagged_from_its_own_address() {
        let links = links(&[]);
        let exit = links.exit(PORT, None).unwrap();
        assert_eq!((exit.port, exit.name, exit.vlan, exit.source), (PORT, "ens1f0", None, PORT_MAC));
        assert_eq!((exit.mtu(V4), exit.mtu(V6), exit.carrier), (1_500, 1_500, true));
    }

    #[test]
    fn a_vlan_interface_is_its_port_and_a_tag_with_its_own_address_and_mtu() {
        let mut tagged = vlan(7, "ens1f0.42", 42, PORT);
        tagged.attributes.push(LinkAttribute::Mtu(1_400));
        let links = links(&[tagged]);
        let exit = links.exit(7, None).unwrap();
        assert_eq!((exit.port, exit.name, exit.vlan), (PORT, "ens1f0.42", Some(42)));
        assert_eq!((exit.source, exit.mtu(V4)), (MacAddress([2, 0, 0, 0, 0, 7]), 1_400));
    }

    /// An attribute: length, type, payload, padded to four bytes.
    fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = 4 + payload.len();
        let mut bytes = [(length as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(payload);
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_vlan_interface_is_understood_as_the_kernel_writes_it() {
        // The attributes in the order and byte order of `vlan_fill_info` and `rtnl_fill_ifinfo`.
        const RTM_NEWLINK: u16 = 16;
        let data = [
            attribute(5, &0x8100u16.to_be_bytes()), // IFLA_VLAN_PROTOCOL
            attribute(1, &42u16.to_ne_bytes()),     // IFLA_VLAN_ID
            attribute(2, &[1u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat()), // IFLA_VLAN_FLAGS
        ]
        .concat();
        let info = [attribute(1, b"vlan\0"), attribute(2, &data)].concat();
        let attributes = [
            attribute(3, b"ens1f0.42\0"),          // IFLA_IFNAME
            attribute(4, &1_400u32.to_ne_bytes()), // IFLA_MTU
            attribute(5, &PORT.to_ne_bytes()),     // IFLA_LINK
            attribute(1, &[2, 0, 0, 0, 0, 7]),     // IFLA_ADDRESS
            attribute(18, &info),                  // IFLA_LINKINFO
        ]
        .concat();
        let up = (LinkFlags::Up | LinkFlags::LowerUp).bits();
        // struct ifinfomsg: family, padding, type (ARPHRD_ETHER), index, flags, change mask.
        let head = [[0, 0, 1, 0], 7u32.to_ne_bytes(), up.to_ne_bytes(), [0; 4]].concat();
        let length = (16 + head.len() + attributes.len()) as u32;
        let kind = [RTM_NEWLINK.to_ne_bytes(), [0; 2]].concat();
        let bytes = [&length.to_ne_bytes()[..], &kind, &[0; 8], &head, &attributes].concat();
        let message = match NetlinkMessage::deserialize(&bytes).unwrap().payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => message,
            other => panic!("{other:?}"),
        };
        let links = links(&[message]);
        let exit = links.exit(7, None).unwrap();
        assert_eq!((exit.port, exit.name, exit.vlan), (PORT, "ens1f0.42", Some(42)));
        assert_eq!((exit.source, exit.mtu(V4)), (MacAddress([2, 0, 0, 0, 0, 7]), 1_400));
    }

    #[test]
    fn a_frame_is_never_larger_than_the_port_below_the_vlan_allows() {
        let mut tagged = vlan(7, "ens1f0.42", 42, PORT);
        tagged.attributes.push(LinkAttribute::Mtu(9_000));
        assert_eq!(links(&[tagged]).exit(7, None).unwrap().mtu(V4), 1_500);
    }

    #[test]
    fn a_smaller_mtu_that_a_router_announced_is_for_ipv6_alone() {
        let mut conf = Inet6DevConf::default();
        conf.mtu6 = 1_280;
        let families = vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::DevConf(conf)])];
        let port = link(PORT, "ens1f0", vec![LinkAttribute::AfSpecUnspec(families)]);
        let mut links = links(&[]);
        assert!(links.observe(&port));
        let exit = links.exit(PORT, None).unwrap();
        assert_eq!((exit.mtu(V4), exit.mtu(V6)), (1_500, 1_280));
    }

    #[test]
    fn tags_that_cannot_be_written_are_refused_by_name() {
        let links = links(&[
            vlan_of(VlanProtocol::Ieee8021Ad, 7, "qinq", 42, PORT),
            vlan(8, "inner", 5, 7),
            vlan(9, "plain", 6, PORT),
            vlan(10, "nested", 7, 9),
            vlan(11, "deeper", 8, 10),
        ]);
        let tail = "on the port ens1f0: xfwd writes one 802.1Q tag and no other";
        for (index, start) in [
            (7, "qinq, an 802.1ad VLAN"),
            (8, "inner, a VLAN inside another"),
            (10, "nested, a VLAN inside another"),
            (11, "deeper, a VLAN inside another"),
        ] {
            assert_eq!(refused(&links, index), format!("the kernel reaches it by {start} {tail}"));
        }
    }

    #[test]
    fn a_vlan_of_an_interface_that_is_no_port_is_no_port_either() {
        let links = links(&[link(5, "eth9", vec![]), vlan(7, "eth9.42", 42, 5), vlan(8, "gone.42", 42, 99)]);
        for (index, name) in [(5, "eth9"), (7, "eth9.42"), (8, "gone.42")] {
            let expected = format!("the kernel reaches it by {name}, which is none of the ports");
            assert_eq!(refused(&links, index), expected);
        }
        assert_eq!(refused(&links, 77), "the kernel reaches it by interface #77, which is none of the ports");
    }

    #[test]
    fn a_vlan_whose_lower_interface_is_in_another_namespace_is_not_taken_for_a_port_of_that_number() {
        let mut tagged = vlan(7, "moved", 42, PORT);
        tagged.attributes.push(LinkAttribute::LinkNetNsId(0));
        assert!(matches!(links(&[tagged]).exit(7, None), Err(Unresolved::OtherInterface { .. })));
    }

    #[test]
    fn the_peer_of_a_veth_is_no_lower_interface() {
        let veth = link(7, "va", vec![LinkAttribute::Link(PORT), info(InfoKind::Veth, vec![])]);
        assert!(matches!(links(&[veth]).exit(7, None), Err(Unresolved::OtherInterface { .. })));
    }

    #[test]
    fn a_group_that_a_port_is_a_member_of_is_refused_by_name() {
        let member = link(PORT, "ens1f0", vec![LinkAttribute::Controller(5)]);
        let advice = "of which the port ens1f0 is a member: which member a frame takes is decided inside the kernel; \
                      give the port ens1f0 an address and a route of its own";
        for (kind, word) in [(InfoKind::Bond, "bond"), (InfoKind::Bridge, "bridge"), (InfoKind::Team, "team")]
        {
            let group = link(5, "group0", vec![info(kind, vec![])]);
            let mut links = links(&[group, vlan(7, "group0.42", 42, 5)]);
            assert!(links.observe(&member));
            assert_eq!(refused(&links, 5), format!("the kernel reaches it by group0, a {word} {advice}"));
            assert_eq!(
                refused(&links, 7),
                format!("the kernel reaches it by group0.42, a VLAN on the {word} group0 {advice}")
            );
        }
    }

    #[test]
    fn the_port_of_a_vrf_is_a_port() {
        let mut links = links(&[link(5, "blue", vec![info(InfoKind::Vrf, vec![])])]);
        links.observe(&link(PORT, "ens1f0", vec![LinkAttribute::Controller(5)]));
        assert!(links.exit(PORT, None).is_ok());
        assert!(matches!(links.exit(5, None), Err(Unresolved::OtherInterface { .. })));
    }

    #[test]
    fn an_interface_without_an_ethernet_address_is_refused() {
        let mut links = links(&[]);
        for bytes in [vec![0; 6], vec![], vec![1; 20]] {
            links.observe(&link(PORT, "tun0", vec![LinkAttribute::Address(bytes)]));
            assert_eq!(refused(&links, PORT), "the kernel reaches it by tun0, which has no Ethernet address");
        }
    }

    #[test]
    fn only_a_change_that_matters_is_one() {
        let mut links = links(&[]);
        assert!(!links.observe(&link(PORT, "ens1f0", vec![LinkAttribute::TxQueueLen(5)])));
        assert!(links.observe(&link(PORT, "ens1f0", vec![LinkAttribute::Mtu(9_000)])));
        let mut bridge = link(PORT, "ens1f0", vec![]);
        bridge.header.interface_family = AddressFamily::Bridge;
        assert!(!links.observe(&bridge) && !links.observe_deleted(&bridge));
        assert!(links.observe_deleted(&link(PORT, "ens1f0", vec![])));
        assert!(!links.observe_deleted(&link(PORT, "ens1f0", vec![])));
        assert!(matches!(links.exit(PORT, None), Err(Unresolved::OtherInterface { .. })));
    }
}
