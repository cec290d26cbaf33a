//! Whether the queues that were asked for are the queues that the interface receives on.
//!
//! AF_XDP sockets are bound to a queue each. Too many: there is nothing to bind to. Too few: packets of the other
//! queues never reach a socket, and the XDP program hands them to the host stack, which is easily taken for loss.

#![forbid(unsafe_code)]

use std::fmt;

use super::{Link, LinkError};

/// The interface receives on more queues than were asked for. `Display` says what that means and how to change it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueWarning {
    /// The interface.
    pub interface: String,
    /// Queues asked for.
    pub asked: u32,
    /// Receive queues in use now.
    pub in_use: u32,
    /// Commands each of which brings all traffic onto the queues asked for; none if the driver has no such setting.
    pub mends: Vec<String>,
}

impl fmt::Display for QueueWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, asked, in_use, mends } = self;
        write!(
            f,
            "`{interface}` receives on {in_use} queues, and {asked} {} asked for: packets that arrive on {} go past \
             xfwd to the host stack. ",
            was(*asked),
            range(*asked, *in_use)
        )?;
        if mends.is_empty() {
            return write!(f, "Ask for all {in_use} queues.");
        }
        writeln!(f, "Ask for all {in_use} queues, or bring all packets onto {} with", range(0, *asked))?;
        for (position, mend) in mends.iter().enumerate() {
            let or = if position == 0 { "" } else { "\nor\n" };
            writeln!(f, "{or}\n    {mend}")?;
        }
        Ok(())
    }
}

impl Link {
    /// Compares the number of queues asked for with those that the interface receives on.
    ///
    /// # Errors
    ///
    /// [`LinkError::TooManyQueues`] and [`LinkError::NoQueues`]. Fewer than there are is a warning, since it may be
    /// meant: RSS or flow steering may already bring the traffic onto them.
    pub fn check_queues(&self, asked: u32) -> Result<Option<QueueWarning>, LinkError> {
        let (interface, in_use) = (self.name.clone(), self.rx_queues);
        if asked == 0 {
            return Err(LinkError::NoQueues { interface, in_use });
        }
        if asked > in_use {
            let mend = self.set_channels(asked);
            return Err(LinkError::TooManyQueues { interface, asked, in_use, max: self.max_queues, mend });
        }
        if asked == in_use {
            return Ok(None);
        }
        let rss = self.rss.then(|| format!("ethtool -X {interface} equal {asked}"));
        let mends = self.set_channels(asked).into_iter().chain(rss).collect();
        Ok(Some(QueueWarning { interface, asked, in_use, mends }))
    }

    /// The command that gives the interface this many receive queues, if the driver allows.
    fn set_channels(&self, queues: u32) -> Option<String> {
        let channels = self.channels?;
        let kind = if queues <= channels.max_combined {
            "combined"
        } else if queues <= channels.max_rx {
            "rx"
        } else {
            return None;
        };
        Some(format!("ethtool -L {} {kind} {queues}", self.name))
    }
}

/// The text of [`LinkError::TooManyQueues`].
pub(super) fn too_many(
    interface: &str,
    asked: u32,
    in_use: u32,
    max: Option<u32>,
    mend: Option<&str>,
) -> String {
    let found = format!(
        "`{interface}` receives on {in_use} {}, and {asked} {} asked for.",
        if in_use == 1 { "queue" } else { "queues" },
        was(asked)
    );
    match (mend, max) {
        (Some(mend), _) => format!("{found} Give it {asked} with\n\n    {mend}\n\nor ask for {in_use}."),
        (None, Some(max)) if max > in_use => {
            format!("{found} Its driver allows {max} at most (`ethtool -l {interface}`).")
        }
        (None, _) => format!("{found} It cannot have more: ask for {in_use}."),
    }
}

fn was(count: u32) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

/// `queue 3`, or `queues 4..7` with the last one included.
fn range(from: u32, end: u32) -> String {
    let last = end - 1;
    if from == last { format!("queue {from}") } else { format!("queues {from}..{last}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::link::Channels;

    fn link(rx_queues: u32, channels: Option<Channels>, rss: bool) -> Link {
        Link {
            index: 2,
            name: "ens1f0".to_owned(),
            driver: Some("ice".to_owned()),
            mtu: 1500,
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            carrier: true,
            rx_queues,
            max_queues: channels.map(|channels| channels.max_combined.max(channels.max_rx)),
            channels,
            rss,
            xdp: None,
        }
    }

    fn combined(in_use: u32, max: u32) -> Option<Channels> {
        Some(Channels { rx: 0, combined: in_use, max_rx: max, max_combined: max })
    }

    #[test]
    fn as_many_as_there_are_is_silent() {
        assert_eq!(link(8, combined(8, 64), true).check_queues(8).unwrap(), None);
    }

    #[test]
    fn too_many_names_the_command_that_adds_queues() {
        assert_eq!(
            link(4, combined(4, 64), true).check_queues(8).unwrap_err().to_string(),
            "`ens1f0` receives on 4 queues, and 8 were asked for. Give it 8 with\n\
             \n    ethtool -L ens1f0 combined 8\n\
             \nor ask for 4."
        );
    }

    #[test]
    fn more_than_the_driver_allows_names_the_maximum() {
        assert_eq!(
            link(4, combined(4, 6), true).check_queues(8).unwrap_err().to_string(),
            "`ens1f0` receives on 4 queues, and 8 were asked for. Its driver allows 6 at most (`ethtool -l ens1f0`)."
        );
        assert_eq!(
            link(1, None, false).check_queues(2).unwrap_err().to_string(),
            "`ens1f0` receives on 1 queue, and 2 were asked for. It cannot have more: ask for 1."
        );
    }

    #[test]
    fn fewer_warns_of_traffic_past_xfwd() {
        assert_eq!(
            link(8, combined(8, 64), true).check_queues(4).unwrap().unwrap().to_string(),
            "`ens1f0` receives on 8 queues, and 4 were asked for: packets that arrive on queues 4..7 go past xfwd to \
             the host stack. Ask for all 8 queues, or bring all packets onto queues 0..3 with\n\
             \n    ethtool -L ens1f0 combined 4\n\
             \nor\n\
             \n    ethtool -X ens1f0 equal 4\n"
        );
        assert_eq!(
            link(2, None, false).check_queues(1).unwrap().unwrap().to_string(),
            "`ens1f0` receives on 2 queues, and 1 was asked for: packets that arrive on queue 1 go past xfwd to the \
             host stack. Ask for all 2 queues."
        );
    }

    #[test]
    fn zero_queues_are_refused() {
        assert_eq!(
            link(4, None, false).check_queues(0).unwrap_err().to_string(),
            "`ens1f0`: 0 queues were asked for; ask for 1 to 4"
        );
    }
}
