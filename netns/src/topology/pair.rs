//! Two hosts on one cable.

use super::{INTERFACE, host};
use crate::{
    error::Result,
    lab::{Lab, Namespace, VethOptions},
};

/// Two hosts on one cable.
#[derive(Debug)]
pub struct Pair {
    /// Host 1: 198.18.0.1 and 2001:db8::1.
    pub generator: Namespace,
    /// Host 2: 198.18.0.2 and 2001:db8::2.
    pub subject: Namespace,
    /// Owns both.
    pub lab: Lab,
}

impl Pair {
    /// Number of the host [`generator`](Self::generator), for [`host_v4`](super::host_v4) and
    /// [`host_v6`](super::host_v6).
    pub const GENERATOR: u8 = 1;
    /// Number of the host [`subject`](Self::subject).
    pub const SUBJECT: u8 = 2;
}

/// A generator and a subject joined by one veth pair with this many queues on each end, MTU 1,500.
///
/// # Errors
///
/// If a part cannot be set up.
pub fn pair(queues: u32) -> Result<Pair> {
    pair_with(&VethOptions { queues, ..VethOptions::default() })
}

/// As [`pair`], with any options (left is the generator).
///
/// # Errors
///
/// If a part cannot be set up.
pub fn pair_with(options: &VethOptions) -> Result<Pair> {
    let lab = Lab::new("pair")?;
    let generator = lab.namespace("generator")?;
    let subject = lab.namespace("subject")?;
    lab.veth(&generator, INTERFACE, &subject, INTERFACE, options)?;
    host::join(&generator, Pair::GENERATOR)?;
    host::join(&subject, Pair::SUBJECT)?;
    Ok(Pair { generator, subject, lab })
}
