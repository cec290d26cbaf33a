//! `[bounce]`: packets go back where they came from.

use serde::Serialize;
use toml::Spanned;

use super::choice::choices;
use super::reader::{Reader, Section};

choices! {
    /// Up to which layer source and destination are exchanged.
    #[derive(Default)]
    pub enum Layer {
        /// MAC addresses.
        #[default]
        L2 = "l2",
        /// MAC and IP addresses.
        L3 = "l3",
        /// MAC and IP addresses, TCP and UDP ports.
        L4 = "l4",
    }
}

/// Packets go back where they came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Bounce {
    /// Up to which layer source and destination are exchanged.
    pub layer: Layer,
}

pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>) -> Option<Spanned<Bounce>> {
    let section = root.table(reader, "bounce", "[bounce]", &["layer"])?;
    let layer = section.choice(reader, "layer").unwrap_or_default();
    Some(Spanned::new(section.span(), Bounce { layer }))
}
