//! XDP programs of two instructions: `return XDP_DROP` and `return XDP_TX`. What they reach is the limit of this lab.

#[path = "../../../../tests/support/xdp.rs"]
#[allow(clippy::unwrap_used, reason = "shared with tests, which fail by panicking")]
mod load;

use std::os::fd::OwnedFd;

use anyhow::Result;
use xfwd_netns::Namespace;
use xfwd_netns::topology::INTERFACE;

use super::{Outcome, Own, Running, Subject};
use crate::bench::Bench;
use crate::offer::driver_count;
use crate::site::Site;

const XDP_TX: u32 = 3;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwoLines {
    /// Drops every packet.
    Drop,
    /// Sends every packet back, as it is.
    Tx,
}

impl Subject for TwoLines {
    fn name(&self) -> String {
        match self {
            Self::Drop => "XDP_DROP",
            Self::Tx => "XDP_TX",
        }
        .to_owned()
    }

    fn shares_core(&self) -> bool {
        true
    }

    fn start(&self, _: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        let program = load::load_returning(match self {
            Self::Drop => load::DROP,
            Self::Tx => XDP_TX,
        });
        let index = site.interface_index(INTERFACE)?;
        let link = site.subject.run(|| load::attach_by_link(&program, index, load::Mode::Native));
        Ok(Box::new(Attached { drops: *self == Self::Drop, namespace: site.subject.clone(), _link: link }))
    }
}

struct Attached {
    drops: bool,
    namespace: Namespace,
    _link: OwnedFd,
}

impl Running for Attached {
    fn stop(self: Box<Self>) -> Result<Own> {
        let count = |what| driver_count(&self.namespace, INTERFACE, what);
        Ok(if self.drops {
            Own { received: Some(count("xdp_drops")?), sent: None }
        } else {
            Own { received: None, sent: Some(count("xdp_tx")?) }
        })
    }
}
