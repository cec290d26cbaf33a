//! Network interfaces: what one is, whether its queues fit, and what happens to it while xfwd runs.
//!
//! [`Link`] is a snapshot of one interface; [`LinkWatcher`] tells the changes. [`Link::check_queues`] and
//! [`Link::check_no_xdp`] refuse what would not work, in words that say how to mend it.
//!
//! All of it is about the network namespace of the calling thread.

#![forbid(unsafe_code)]

mod attached;
mod queues;
mod watcher;

use std::io;

use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, Prop},
};

pub use self::{
    attached::{AttachedMode, AttachedXdp},
    queues::QueueWarning,
    watcher::{LinkChange, LinkEvent, LinkWatcher},
};
use super::{ethtool, netlink::Netlink};
pub use ethtool::Channels;

/// `IFLA_ALT_IFNAME`: an interface's other names, of up to [`ALT_NAME_MAX_BYTES`].
const IFLA_ALT_IFNAME: u16 = 53;

/// `ALTIFNAMSIZ`, less the terminating zero.
const ALT_NAME_MAX_BYTES: usize = 127;

/// Why an interface cannot be used, or not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No interface has this name.
    #[error("there is no interface `{name}` in this network namespace; {}", listing(.name, .existing))]
    NotFound {
        /// What was looked for.
        name: String,
        /// The names that exist, those most like `name` first.
        existing: Vec<String>,
    },
    /// No interface has this index (any more).
    #[error(
        "there is no interface with index {index} in this network namespace: it was removed or moved away"
    )]
    Vanished {
        /// The interface's index.
        index: u32,
    },
    /// More queues were asked for than the interface receives on.
    #[error("{}", queues::too_many(.interface, *.asked, *.in_use, *.max, .mend.as_deref()))]
    TooManyQueues {
        /// The interface.
        interface: String,
        /// Queues asked for.
        asked: u32,
        /// Receive queues in use now.
        in_use: u32,
        /// The most that the driver allows, where it says.
        max: Option<u32>,
        /// The command that gives the interface as many as were asked for, if it can have them.
        mend: Option<String>,
    },
    /// Zero queues were asked for.
    #[error("`{interface}`: 0 queues were asked for; ask for 1 to {in_use}")]
    NoQueues {
        /// The interface.
        interface: String,
        /// Receive queues in use now.
        in_use: u32,
    },
    /// The interface has an XDP program, and there can be only one.
    #[error("{}", attached::in_the_way(.interface, .xdp))]
    XdpAttached {
        /// The interface.
        interface: String,
        /// Its program.
        xdp: AttachedXdp,
    },
    /// A system call failed.
    #[error("{call} for interface `{interface}`: {source}")]
    Kernel {
        /// The call or netlink request.
        call: &'static str,
        /// The interface's name, or `#` and its index, or `*` for all.
        interface: String,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// Names that a message lists; a host of containers has hundreds.
const NAMES_LISTED: usize = 8;
/// Most differences between a name and the one that was meant.
const NEAR: usize = 2;

fn listing(name: &str, existing: &[String]) -> String {
    let Some(nearest) = existing.first() else {
        return "it has none at all".to_owned();
    };
    let distance = strsim::damerau_levenshtein(name, nearest);
    let hint = if distance <= NEAR && distance < nearest.chars().count() {
        format!("did you mean `{nearest}`? It has: ")
    } else {
        "it has: ".to_owned()
    };
    let listed = existing[..existing.len().min(NAMES_LISTED)].join(", ");
    match existing.len().saturating_sub(NAMES_LISTED) {
        0 => format!("{hint}{listed}"),
        more => format!("{hint}{listed}, and {more} more"),
    }
}

/// A network interface, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// The kernel's number for it, which a rename does not change.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The driver, such as `ixgbe` or `veth`, where it says.
    pub driver: Option<String>,
    /// The largest layer 3 packet, in bytes (an Ethernet header comes on top).
    pub mtu: u32,
    /// The MAC address; zero for an interface that has none of six bytes.
    pub mac: [u8; 6],
    /// Whether it is up administratively (`ip link set up`).
    pub up: bool,
    /// Whether it is up and the line is connected.
    pub carrier: bool,
    /// Receive queues in use now, numbered from 0.
    pub rx_queues: u32,
    /// The most receive queues that the driver allows, where it says.
    pub max_queues: Option<u32>,
    /// How those queues are made up, for drivers that let it be changed.
    pub channels: Option<Channels>,
    /// Whether receive-side scaling can be told which queues to use (`ethtool -X`).
    pub rss: bool,
    /// The XDP program on it.
    pub xdp: Option<AttachedXdp>,
}

impl Link {
    /// Finds an interface by its name or one of its alternative names.
    ///
    /// # Errors
    ///
    /// [`LinkError::NotFound`], which lists those that exist; [`LinkError::Kernel`].
    pub fn find(name: &str) -> Result<Self, LinkError> {
        if name.is_empty() || name.len() > ALT_NAME_MAX_BYTES || name.contains('\0') {
            return Err(not_found(name));
        }
        let attribute = if name.len() < libc::IFNAMSIZ {
            LinkAttribute::IfName(name.to_owned())
        } else {
            let mut text = name.as_bytes().to_vec();
            text.push(0);
            LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, text))
        };
        let mut request = LinkMessage::default();
        request.attributes.push(attribute);
        match get(request) {
            Ok(message) => Self::from_message(&message),
            Err(source) if is_absent(&source) => Err(not_found(name)),
            Err(source) => Err(LinkError::Kernel { call: "RTM_GETLINK", interface: name.to_owned(), source }),
        }
    }

    /// Finds an interface by its index.
    ///
    /// # Errors
    ///
    /// [`LinkError::Vanished`], [`LinkError::Kernel`].
    pub fn by_index(index: u32) -> Result<Self, LinkError> {
        Self::from_message(&message_of(index)?)
    }

    /// All interfaces, by index.
    ///
    /// # Errors
    ///
    /// [`LinkError::Kernel`].
    pub fn list() -> Result<Vec<Self>, LinkError> {
        let mut links = Vec::new();
        for message in dump()? {
            match Self::from_message(&message) {
                Ok(link) => links.push(link),
                // Removed since the dump.
                Err(LinkError::Vanished { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// Whether an interface with this index exists; one question to the kernel.
    ///
    /// # Errors
    ///
    /// [`LinkError::Kernel`].
    pub fn exists(index: u32) -> Result<bool, LinkError> {
        match message_of(index) {
            Ok(_) => Ok(true),
            Err(LinkError::Vanished { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Checks that no XDP program is in the way.
    ///
    /// # Errors
    ///
    /// [`LinkError::XdpAttached`], which names the program and the command that removes it.
    pub fn check_no_xdp(&self) -> Result<(), LinkError> {
        match &self.xdp {
            None => Ok(()),
            Some(xdp) => Err(LinkError::XdpAttached { interface: self.name.clone(), xdp: xdp.clone() }),
        }
    }

    fn from_message(message: &LinkMessage) -> Result<Self, LinkError> {
        let Basics { index, name, up, carrier } = Basics::of(message);
        let ethtool_error = |call| {
            let interface = name.clone();
            move |source: io::Error| match is_absent(&source) {
                true => LinkError::Vanished { index },
                false => LinkError::Kernel { call, interface, source },
            }
        };
        let driver = ethtool::driver(&name).map_err(ethtool_error("ioctl(ETHTOOL_GDRVINFO)"))?;
        let channels = ethtool::channels(&name).map_err(ethtool_error("ioctl(ETHTOOL_GCHANNELS)"))?;
        let rss = ethtool::has_rss_table(&name).map_err(ethtool_error("ioctl(ETHTOOL_GRXFHINDIR)"))?;

        let (mut mtu, mut mac, mut rx_queues) = (0, [0; 6], 1);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Mtu(value) => mtu = *value,
                LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::NumRxQueues(value) => rx_queues = *value,
                _ => {}
            }
        }
        if let Some(channels) = channels {
            rx_queues = channels.combined + channels.rx;
        }
        Ok(Self {
            index,
            driver,
            mtu,
            mac,
            up,
            carrier,
            rx_queues,
            // Drivers that have both kinds offer them as alternatives, so the maxima do not add up.
            max_queues: channels.map(|channels| channels.max_combined.max(channels.max_rx)),
            channels,
            rss,
            xdp: attached::of(message),
            name,
        })
    }
}

/// The part of an interface that notifications are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basics {
    index: u32,
    name: String,
    up: bool,
    carrier: bool,
}

impl Basics {
    fn of(message: &LinkMessage) -> Self {
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        Self {
            index: message.header.index,
            name: name.unwrap_or_default(),
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
        }
    }
}

/// Whether an error says that the interface does not exist.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

fn get(mut request: LinkMessage) -> io::Result<LinkMessage> {
    // Counters are not looked at, and make an answer several times as long.
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    match Netlink::open()?.get(RouteNetlinkMessage::GetLink(request))? {
        RouteNetlinkMessage::NewLink(message) => Ok(message),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer {other:?}"))),
    }
}

fn message_of(index: u32) -> Result<LinkMessage, LinkError> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    get(request).map_err(|source| match index == 0 || is_absent(&source) {
        true => LinkError::Vanished { index },
        false => LinkError::Kernel { call: "RTM_GETLINK", interface: format!("#{index}"), source },
    })
}

fn dump() -> Result<Vec<LinkMessage>, LinkError> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answers =
        Netlink::open().and_then(|mut netlink| netlink.dump(RouteNetlinkMessage::GetLink(request))).map_err(
            |source| LinkError::Kernel { call: "RTM_GETLINK dump", interface: "*".to_owned(), source },
        )?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(message),
            _ => None,
        })
        .collect())
}

fn not_found(name: &str) -> LinkError {
    let messages = match dump() {
        Ok(messages) => messages,
        Err(error) => return error,
    };
    let existing = messages.iter().map(|message| {
        let mut distance = usize::MAX;
        let primary = Basics::of(message).name;
        for candidate in alternative_names(message).chain([primary.as_str()]) {
            distance = distance.min(strsim::damerau_levenshtein(name, candidate));
        }
        (distance, primary)
    });
    let mut existing: Vec<_> = existing.collect();
    existing.sort();
    LinkError::NotFound {
        name: name.to_owned(),
        existing: existing.into_iter().map(|(_, name)| name).collect(),
    }
}

fn alternative_names(message: &LinkMessage) -> impl Iterator<Item = &str> {
    let properties = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::PropList(properties) => Some(properties),
        _ => None,
    });
    properties.flatten().filter_map(|property| match property {
        Prop::AltIfName(name) => Some(name.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_proposed_if_it_is_near() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(listing("eht0", &names(&["eth0", "lo"])), "did you mean `eth0`? It has: eth0, lo");
        assert_eq!(listing("ens1f0", &names(&["eth0", "lo"])), "it has: eth0, lo");
        assert_eq!(listing("x", &names(&["lo"])), "it has: lo");
        assert_eq!(listing("x", &[]), "it has none at all");
        let many: Vec<_> = (0..300).map(|number| format!("veth{number}")).collect();
        assert!(listing("ens1f0", &many).ends_with(", veth7, and 292 more"));
    }

    #[test]
    fn loopback_is_found_everywhere() {
        let lo = Link::find("lo").unwrap();
        assert_eq!((lo.name.as_str(), lo.mac, lo.rx_queues, lo.max_queues), ("lo", [0; 6], 1, None));
        assert_eq!(lo, Link::by_index(lo.index).unwrap());
        assert!(Link::list().unwrap().contains(&lo));
        assert!(Link::exists(lo.index).unwrap());
    }

    #[test]
    fn index_that_does_not_exist_is_no_error() {
        assert!(!Link::exists(0x7fff_fff0).unwrap());
        assert!(!Link::exists(0).unwrap());
    }

    #[test]
    fn names_that_cannot_be_are_not_found() {
        for name in ["", "a\0b", &"x".repeat(200), &"x".repeat(100), "../lo", "sixteen-letters-"] {
            assert!(matches!(Link::find(name), Err(LinkError::NotFound { .. })), "{name:?}");
        }
    }
}
