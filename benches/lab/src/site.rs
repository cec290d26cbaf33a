//! The network of one measurement: made for it, and removed after it with all that a subject has left in it.
//!
//! ```text
//! generator eth0 ── eth0 subject eth1 ── eth0 sink
//! ```

use std::net::Ipv4Addr;

use crate::subject::{Failure, Outcome};
use anyhow::Result;
use xfwd_netns::topology::{self, BACKEND_INTERFACE, INTERFACE, Pair};
use xfwd_netns::trafficgen::MAX_FRAME_LENGTH;
use xfwd_netns::{Lab, Namespace, VethOptions};

/// Address of the subject's interface towards the sink.
pub const SUBJECT_FAR: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// Address of the sink.
pub const SINK: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);

/// What kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Queues of each interface.
    pub queues: u32,
    /// MTU of all links, in bytes.
    pub mtu: u32,
    /// Whether there is a second port, with a sink behind it.
    pub two_ports: bool,
}

impl Default for Shape {
    /// One port with one queue, MTU 1,500.
    fn default() -> Self {
        Self { queues: 1, mtu: 1_500, two_ports: false }
    }
}

/// A network.
pub struct Site {
    /// What kind it is.
    pub shape: Shape,
    /// Sends, and gets back what is bounced.
    pub generator: Namespace,
    /// Where the subject works, on [`INTERFACE`], and [`BACKEND_INTERFACE`] if it has two ports.
    pub subject: Namespace,
    /// Gets what is forwarded, if there are two ports.
    pub sink: Option<Namespace>,
    _lab: Lab,
}

impl Site {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// If a part cannot be set up.
    pub fn new(shape: Shape) -> Result<Self> {
        let cable = VethOptions { queues: shape.queues, mtu: shape.mtu, ..VethOptions::default() };
        let Pair { generator, subject, lab } = topology::pair_with(&cable)?;
        let mut site = Self { shape, generator, subject, sink: None, _lab: lab };
        if shape.two_ports {
            let sink = site._lab.namespace("sink")?;
            site._lab.veth(&site.subject, BACKEND_INTERFACE, &sink, INTERFACE, &cable)?;
            site.subject.address(BACKEND_INTERFACE, &format!("{SUBJECT_FAR}/24"))?;
            sink.address(INTERFACE, &format!("{SINK}/24"))?;
            site.sink = Some(sink);
        }
        Ok(site)
    }

    /// The subject's interfaces.
    pub fn interfaces(&self) -> &'static [&'static str] {
        if self.shape.two_ports { &[INTERFACE, BACKEND_INTERFACE] } else { &[INTERFACE] }
    }

    /// For subjects whose XDP program, that of libxdp, takes packets of one buffer only.
    ///
    /// # Errors
    ///
    /// [`Failure::Missing`] if the links' MTU is longer than fits one.
    pub fn refuse_jumbo(&self) -> Outcome<()> {
        if self.shape.mtu as usize > MAX_FRAME_LENGTH {
            let reason =
                format!("it takes packets of one buffer, which an MTU of {} does not fit", self.shape.mtu);
            return Err(Failure::Missing(reason));
        }
        Ok(())
    }

    /// Index of one of the subject's interfaces.
    pub fn interface_index(&self, interface: &str) -> Result<u32> {
        Ok(self.subject.run(|| nix::net::if_::if_nametoindex(interface))?)
    }
}
