//! `[pipeline]`: which stages a packet passes, in which order.

use std::fmt;

use serde::{Serialize, Serializer};
use toml::Spanned;

use super::choice::{list, nearest};
use super::reader::{Reader, Section};
use super::registry::Registry;

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StageKind {
    /// The packet filter, of `[[filter]]`.
    Filter,
    /// Load balancing, of `[[service]]`.
    Balance,
    /// Back where it came from, of `[bounce]`.
    Bounce,
    /// One of this name that was [registered](Registry::stage), of a section of the same name.
    Custom(&'static str),
}

impl StageKind {
    /// Those that ship, in the order of the pipeline if the file does not say another.
    pub(super) const SHIPPED: [Self; 3] = [Self::Filter, Self::Balance, Self::Bounce];

    /// The word for it in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Balance => "balance",
            Self::Bounce => "bounce",
            Self::Custom(name) => name,
        }
    }

    /// Name of the section that has its settings.
    const fn section(self) -> &'static str {
        match self {
            Self::Balance => "service",
            other => other.name(),
        }
    }

    /// The section as it stands in the file.
    fn header(self) -> String {
        match self {
            Self::Filter | Self::Balance => format!("[[{}]]", self.section()),
            _ => format!("[{}]", self.section()),
        }
    }

    /// All that a file may have, in the order of the pipeline if it does not say another.
    fn all(registry: &Registry) -> Vec<Self> {
        let [filter, balance, bounce] = Self::SHIPPED;
        let custom = registry.names().map(Self::Custom);
        [filter].into_iter().chain(custom).chain([balance, bounce]).collect()
    }
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for StageKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The stages in the order a packet passes them: what `[pipeline]` names, or else all that have a section. None when there
/// is only a deny list.
pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>, registry: &Registry) -> Vec<StageKind> {
    let all = StageKind::all(registry);
    let in_file = all.iter().copied().filter(|stage| root.has(stage.section()));
    let section = root.table(reader, "pipeline", "[pipeline]", &["stages"]);
    let named = section.as_ref().and_then(|section| section.texts(reader, "stages"));
    let Some(named) = named else {
        let stages: Vec<_> = in_file.collect();
        // A deny list needs no stage: it is in the XDP program.
        if stages.is_empty() && !root.has("deny") {
            reader.error_about_file("there is nothing to do").help(
                "add `[[service]]` to balance load, `[[filter]]` or `[deny]` to drop packets, or `[bounce]` to send them \
                 back where they came from",
            );
        }
        return stages;
    };

    let mut stages: Vec<Spanned<StageKind>> = Vec::new();
    for word in &named {
        if let Some(stage) = stage(root, reader, word, &all, &stages) {
            stages.push(Spanned::new(word.span(), stage));
        }
    }
    if named.is_empty()
        && let Some(list) = section.as_ref().and_then(|section| section.value("stages"))
    {
        reader
            .error(list.span(), "`stages` is empty")
            .help("without `stages`, all sections of the file are used");
        return Vec::new();
    }
    for unused in in_file.filter(|stage| !named.iter().any(|word| *word.get_ref() == stage.name())) {
        if let Some(place) = root.value(unused.section()) {
            reader
                .warning(place.span(), format!("`{}` is not used", unused.header()))
                .label(format!("`stages` of `[pipeline]` does not name `{unused}`"));
        }
    }
    let bounce = stages.iter().position(|stage| *stage.get_ref() == StageKind::Bounce);
    for behind in stages.iter().skip(bounce.map_or(stages.len(), |bounce| bounce + 1)) {
        reader
            .warning(behind.span(), format!("no packet reaches `{}`", behind.get_ref()))
            .label("`bounce` stands before it and sends every packet back");
    }
    stages.into_iter().map(Spanned::into_inner).collect()
}

/// The stage `word` names; `None` when that is wrong, which is reported.
fn stage(
    root: &Section<'_>,
    reader: &mut Reader<'_>,
    word: &Spanned<&str>,
    all: &[StageKind],
    before: &[Spanned<StageKind>],
) -> Option<StageKind> {
    let stage = choice(reader, word, all)?;
    if before.iter().any(|first| *first.get_ref() == stage) {
        reader
            .error(word.span(), format!("the stage `{stage}` stands twice in `stages`"))
            .label("remove this");
        return None;
    }
    if !root.has(stage.section()) {
        reader
            .error(word.span(), format!("the stage `{stage}` has no section"))
            .label(format!("add `{}`, or remove this", stage.header()));
        return None;
    }
    Some(stage)
}

/// The stage that `word` names, whether or not it has a section.
fn choice(reader: &mut Reader<'_>, word: &Spanned<&str>, all: &[StageKind]) -> Option<StageKind> {
    let known = || all.iter().map(|stage| stage.name());
    let found = all.iter().copied().find(|stage| stage.name() == *word.get_ref());
    if found.is_none() {
        let error = reader.error(word.span(), format!("unknown value `{}` for `stages`", word.get_ref()));
        if let Some(meant) = nearest(word.get_ref(), known()) {
            error.label(format!("did you mean `{meant}`?"));
        } else {
            error.label(format!("known: {}", list(known())));
        }
    }
    found
}
