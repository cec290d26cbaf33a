//! The XDP program that an interface already has: there is room for one.

#![forbid(unsafe_code)]

use std::fmt;

use aya::programs::{loaded_links, loaded_programs};
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};

/// Where an XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the network stack, after the driver has made a socket buffer.
    Generic,
    /// On the NIC.
    Offload,
    /// Programs in more than one place.
    Multi,
}

impl fmt::Display for AttachedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
            Self::Multi => "multi",
        })
    }
}

/// An XDP program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachedXdp {
    /// The program's id, as `bpftool prog` shows it; with [`AttachedMode::Multi`], that of one of them.
    pub id: u32,
    /// The program's name of up to 15 bytes. `None`: it has none, or this process may not look (CAP_SYS_ADMIN).
    pub name: Option<String>,
    /// Where it runs.
    pub mode: AttachedMode,
    /// Whether a bpf_link holds it, which no command but the end of its owner undoes. `None`: this process may not
    /// look (CAP_SYS_ADMIN).
    pub held_by_link: Option<bool>,
}

/// Reads the `IFLA_XDP` attribute of a link.
pub(super) fn of(message: &LinkMessage) -> Option<AttachedXdp> {
    let (id, mode) = id_and_mode(message)?;
    Some(AttachedXdp { id, name: name_of(id), mode, held_by_link: held_by_link(id) })
}

fn id_and_mode(message: &LinkMessage) -> Option<(u32, AttachedMode)> {
    let (mut first_id, mut mode) = (None, None);
    let parts = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(parts) => Some(parts),
        _ => None,
    });
    for part in parts.flatten() {
        match part {
            LinkXdp::Attached(XdpAttached::Driver) => mode = Some(AttachedMode::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some(AttachedMode::Generic),
            LinkXdp::Attached(XdpAttached::Hardware) => mode = Some(AttachedMode::Offload),
            LinkXdp::Attached(XdpAttached::Multiple) => mode = Some(AttachedMode::Multi),
            // With several programs there is no IFLA_XDP_PROG_ID, only one id for each place.
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
                first_id = first_id.or(Some(*id));
            }
            _ => {}
        }
    }
    Some((first_id.unwrap_or_default(), mode?))
}

/// Ends at the first error: without CAP_SYS_ADMIN that is the first step.
fn name_of(id: u32) -> Option<String> {
    let program = loaded_programs().map_while(Result::ok).find(|program| program.id() == id)?;
    program.name_as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn held_by_link(id: u32) -> Option<bool> {
    for link in loaded_links() {
        // A link that ends while they are gone through is an error like any other: then it is not known.
        if link.ok()?.program_id() == id {
            return Some(true);
        }
    }
    Some(false)
}

/// The text of [`LinkError::XdpAttached`](super::LinkError::XdpAttached).
pub(super) fn in_the_way(interface: &str, xdp: &AttachedXdp) -> String {
    let AttachedXdp { id, name, mode, held_by_link } = xdp;
    let name = name.as_deref().unwrap_or("unnamed");
    let found = format!("`{interface}` already has an XDP program: {name} (id {id}, {mode} mode).");
    let commands: &[&str] = match mode {
        AttachedMode::Native => &["xdp off"],
        AttachedMode::Generic => &["xdpgeneric off"],
        AttachedMode::Offload => &["xdpoffload off"],
        AttachedMode::Multi => &["xdp off", "xdpgeneric off", "xdpoffload off"],
    };
    let commands: String =
        commands.iter().map(|command| format!("\n    ip link set dev {interface} {command}\n")).collect();
    let owner = "it goes when the process that owns the link ends, or the pin of the link is removed; \
                 `bpftool link show` names the process";
    match held_by_link {
        Some(true) => format!("{found} A bpf_link holds it: {owner}."),
        Some(false) => format!("{found} Remove it with\n{commands}"),
        None => format!(
            "{found} Remove it with\n{commands}\nIf that answers `Device or resource busy`, a bpf_link holds it: \
             {owner}."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(mode: AttachedMode, held_by_link: Option<bool>) -> AttachedXdp {
        AttachedXdp { id: 42, name: Some("xdp_lb".to_owned()), mode, held_by_link }
    }

    #[test]
    fn message_names_the_command_that_removes_the_program() {
        assert_eq!(
            in_the_way("va", &attached(AttachedMode::Native, Some(false))),
            "`va` already has an XDP program: xdp_lb (id 42, native mode). Remove it with\n\
             \n    ip link set dev va xdp off\n"
        );
        assert_eq!(
            in_the_way("va", &AttachedXdp { name: None, ..attached(AttachedMode::Generic, Some(false)) }),
            "`va` already has an XDP program: unnamed (id 42, generic mode). Remove it with\n\
             \n    ip link set dev va xdpgeneric off\n"
        );
    }

    #[test]
    fn program_held_by_a_link_asks_for_the_owners_end() {
        assert_eq!(
            in_the_way("va", &attached(AttachedMode::Native, Some(true))),
            "`va` already has an XDP program: xdp_lb (id 42, native mode). A bpf_link holds it: it goes when the \
             process that owns the link ends, or the pin of the link is removed; `bpftool link show` names the \
             process."
        );
        let unknown = in_the_way("va", &attached(AttachedMode::Native, None));
        assert!(unknown.contains("\n    ip link set dev va xdp off\n"), "{unknown}");
        assert!(
            unknown.contains("If that answers `Device or resource busy`, a bpf_link holds it"),
            "{unknown}"
        );
    }

    #[test]
    fn several_programs_have_one_mode_and_the_first_id() {
        let mut message = LinkMessage::default();
        assert_eq!(id_and_mode(&message), None);
        message.attributes.push(LinkAttribute::Xdp(vec![
            LinkXdp::Attached(XdpAttached::Multiple),
            LinkXdp::DrvProgId(7),
            LinkXdp::SkbProgId(8),
        ]));
        assert_eq!(id_and_mode(&message), Some((7, AttachedMode::Multi)));
    }

    #[test]
    fn attribute_that_says_none_is_none() {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Attached(XdpAttached::None)]));
        assert_eq!(id_and_mode(&message), None);
    }
}
