//! `[bounce]`: packets go back where they came from.

use serde::Serialize;
use toml::Spanned;

use super::reader::{Reader, Section};
use crate::stages::bounce::Layer;

/// Packets go back where they came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
