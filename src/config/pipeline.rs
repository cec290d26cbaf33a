//! `[pipeline]`: which stages a packet passes, in which order.

use toml::Spanned;

use super::reader::{Reader, Section, choice};
use crate::words::choices;

choices! {
    /// A stage of the pipeline.
    pub enum StageKind {
        /// The packet filter, of `[[filter]]`.
        Filter = "filter",
        /// Load balancing, of `[[service]]`.
        Balance = "balance",
        /// Back where it came from, of `[bounce]`.
        Bounce = "bounce",
    }
}

impl StageKind {
    /// Name of the section that has its settings.
    const fn section(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Balance => "service",
            Self::Bounce => "bounce",
        }
    }

    /// The section as it stands in the file.
    const fn header(self) -> &'static str {
        match self {
            Self::Filter => "[[filter]]",
            Self::Balance => "[[service]]",
            Self::Bounce => "[bounce]",
        }
    }
}

/// The stages in the order a packet passes them: what `[pipeline]` names, or else all that have a section. None when there
/// is only a deny list.
pub(super) fn read(root: &Section<'_>, reader: &mut Reader<'_>) -> Vec<StageKind> {
    let all = [StageKind::Filter, StageKind::Balance, StageKind::Bounce];
    let in_file = all.into_iter().filter(|stage| root.has(stage.section()));
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
        if let Some(stage) = stage(root, reader, word, &stages) {
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
    before: &[Spanned<StageKind>],
) -> Option<StageKind> {
    let stage: StageKind = choice(reader, "stages", word)?;
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
