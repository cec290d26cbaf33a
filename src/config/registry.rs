//! Stages of others in the config file: a name, a section, and what makes the stage from it.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::reader::{Reader, Section};
use super::{ConfigError, Plan, StageKind, filter, plan};
use crate::kernel::xdp::SteeredService;
use crate::pipeline::Stage;
use crate::worker::WorkerContext;

/// Stages that a config file may have beside those that ship.
///
/// A stage has a name, by which `stages` of `[pipeline]` calls it, and a section of that name, which is read into a type of the
/// caller's own by serde. Give it `#[serde(deny_unknown_fields)]`, so that a misspelt key is an error with its place as
/// everywhere in the file.
///
/// ```
/// use xfwd::config::{Registry, SectionError, StageFactory};
/// use xfwd::prelude::*;
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {
///     longest: usize,
/// }
///
/// struct Short {
///     longest: usize,
///     refused: StageCounter,
/// }
///
/// impl Stage for Short {
///     fn name(&self) -> &str {
///         "short"
///     }
///     fn process(&mut self, batch: &mut Batch<'_>) {
///         batch.each_undecided(|packet| {
///             if packet.len() <= self.longest {
///                 return Verdict::Continue;
///             }
///             self.refused.add(1);
///             Verdict::Drop(DropReason::Rule)
///         });
///     }
/// }
///
/// let registry = Registry::new().stage("short", |settings: Settings| {
///     let longest = settings.longest;
///     if longest < 60 {
///         return Err(SectionError::new("no packet is so short").key("longest"));
///     }
///     Ok(StageFactory::new(move |worker| Short { longest, refused: worker.counter("too-long") }))
/// });
///
/// let plan = registry.parse("lb.toml", "[short]\nlongest = 1500\n[bounce]\n[dataplane]\nsteer = \"all\"\n")?;
/// assert_eq!(plan.stages.iter().map(|stage| stage.name()).collect::<Vec<_>>(), ["short", "bounce"]);
///
/// let error = registry.parse("lb.toml", "[short]\nlongest = 6\n[bounce]\n").unwrap_err();
/// assert_eq!((error.diagnostics()[0].line, error.diagnostics()[0].column), (2, 11));
/// # Ok::<(), xfwd::config::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    stages: Vec<Registered>,
}

#[derive(Clone)]
struct Registered {
    name: &'static str,
    read: Arc<ReadSection>,
}

type ReadSection = dyn Fn(Spanned<DeValue<'_>>) -> Result<StageFactory, SectionError> + Send + Sync;
type MakeStage = dyn Fn(&WorkerContext) -> Box<dyn Stage> + Send + Sync;

/// Makes a registered stage for each worker, by what its section says.
#[derive(Clone)]
pub struct StageFactory {
    make: Arc<MakeStage>,
    steered: Vec<SteeredService>,
}

impl StageFactory {
    /// `make` is called once for each worker, on the thread that starts the run.
    pub fn new<S: Stage + 'static>(make: impl Fn(&WorkerContext) -> S + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(move |context| Box::new(make(context))), steered: Vec::new() }
    }

    /// These packets leave the kernel for the stage, whatever `steer` says.
    pub fn steer(mut self, service: SteeredService) -> Self {
        self.steered.push(service);
        self
    }
}

impl fmt::Debug for StageFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageFactory").field("steered", &self.steered).finish_non_exhaustive()
    }
}

/// What is wrong with a section. Any error becomes one by `?`; it is then about the whole section.
#[derive(Clone, Debug)]
pub struct SectionError {
    message: String,
    key: Option<&'static str>,
    place: Option<Range<usize>>,
    label: Option<String>,
    help: Option<String>,
}

impl SectionError {
    /// An error about the whole section.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), key: None, place: None, label: None, help: None }
    }

    /// The same about the value of this key.
    pub fn key(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// The same about these bytes of the file, as [`toml::Spanned`] has them.
    pub fn at(self, place: Range<usize>) -> Self {
        Self { place: Some(place), ..self }
    }

    /// A short remark on the marked place.
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// What to do about it.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl<E: std::error::Error> From<E> for SectionError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// A registered stage that a file has a section for. Two are equal when their sections are.
#[derive(Clone, Debug)]
pub struct CustomStage {
    name: &'static str,
    /// The section, to be compared.
    settings: String,
    factory: StageFactory,
}

impl CustomStage {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The stage of one worker.
    pub fn make(&self, context: &WorkerContext) -> Box<dyn Stage> {
        (self.factory.make)(context)
    }

    /// The packets that leave the kernel for it.
    pub fn steered(&self) -> &[SteeredService] {
        &self.factory.steered
    }
}

impl PartialEq for CustomStage {
    fn eq(&self, other: &Self) -> bool {
        (self.name, &self.settings) == (other.name, &other.settings)
    }
}

impl Eq for CustomStage {}

impl Serialize for CustomStage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl Registry {
    /// None but those that ship.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the stage `name`, which has the section `[name]`. `read` says what is wrong with the section, or how the stage
    /// is made by it. Without `[pipeline]` a stage stands behind `filter` and before `balance`; several in the order in
    /// which they were added.
    ///
    /// # Panics
    ///
    /// When `name` is not made of letters, digits, `_` and `-`, or is taken.
    pub fn stage<T: DeserializeOwned>(
        mut self,
        name: &'static str,
        read: impl Fn(T) -> Result<StageFactory, SectionError> + Send + Sync + 'static,
    ) -> Self {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        assert!(!name.is_empty() && name.bytes().all(is_word), "`{name}` is no name for a section");
        let is_shipped =
            plan::SECTIONS.contains(&name) || StageKind::SHIPPED.iter().any(|stage| stage.name() == name);
        assert!(!is_shipped && !self.names().any(|known| known == name), "the name `{name}` is taken");
        let read = move |section: Spanned<DeValue<'_>>| {
            let settings = T::deserialize(ValueDeserializer::from(section)).map_err(|error| {
                SectionError { place: error.span(), ..SectionError::new(error.message()) }
            })?;
            read(settings)
        };
        self.stages.push(Registered { name, read: Arc::new(read) });
        self
    }

    /// As [`load`](super::load), with these stages.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn load(&self, path: &Path) -> Result<Plan, ConfigError> {
        let unreadable = |reason| ConfigError::Unreadable { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        self.parse(&path.display().to_string(), &text)
    }

    /// As [`parse`](super::parse), with these stages.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn parse(&self, name: &str, text: &str) -> Result<Plan, ConfigError> {
        let directory = Path::new(name).parent().unwrap_or(Path::new("")).to_owned();
        plan::read(name, text, &filter::Files { directory }, self).map_err(ConfigError::Invalid)
    }

    /// Names of the stages, in the order in which they were added.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.stages.iter().map(|stage| stage.name)
    }

    /// The stages that have a section.
    pub(super) fn read(&self, root: &Section<'_>, reader: &mut Reader<'_>) -> Vec<CustomStage> {
        let mut stages = Vec::new();
        for Registered { name, read } in &self.stages {
            let Some(section) = root.value(name) else { continue };
            let DeValue::Table(table) = section.get_ref() else {
                reader.wrong_type(name, section, "a table").help(format!("write `[{name}]`"));
                continue;
            };
            match read(section.clone()) {
                Ok(factory) => {
                    // Without places: a section that has moved in its file says the same.
                    let settings = toml::Value::deserialize(ValueDeserializer::from(section.clone()))
                        .map_or_else(|_| format!("{table:?}"), |value| value.to_string());
                    stages.push(CustomStage { name, settings, factory });
                }
                Err(SectionError { message, key, place, label, help }) => {
                    let of_key = key.and_then(|key| table.get(key)).map(Spanned::span);
                    let place = place.or(of_key).unwrap_or_else(|| section.span());
                    let error = reader.error(place, format!("`[{name}]`: {message}"));
                    error.label = label;
                    error.help = help;
                }
            }
        }
        stages
    }
}
