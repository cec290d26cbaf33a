//! The sections and keys of the config file as data: what is read from the types, and what the reader answers.

use schemars::{JsonSchema, Schema, schema_for};
use serde_json::Value as Json;

use super::ask::{Place, least_plan, words};
use crate::config::{
    Backend, BackendState, BalanceSettings, Bounce, Dataplane, Forward, HealthCheck, HealthKind, NatSettings,
    Service, duration,
};
use crate::stages::filter::fields::{FIELDS, GENERAL};
use crate::words::Choice;

/// A section.
pub struct Section {
    /// As it stands in the file.
    pub header: &'static str,
    pub place: Place,
    pub meaning: String,
    pub keys: Vec<Key>,
}

/// A key, or several that hold the same.
pub struct Key {
    pub names: Vec<String>,
    pub is_required: bool,
    /// As it would stand in the file.
    pub default: Option<String>,
    pub holds: Holds,
    pub meaning: String,
}

/// What a key may hold.
pub enum Holds {
    /// One of these words, each with what it means.
    Word(Vec<(String, String)>),
    Flag,
    Number {
        bounds: (u64, u64),
        shape: Option<&'static str>,
    },
    /// Within these bounds.
    Time(String),
    Text(String),
    Texts(String),
    /// A section of its own.
    Section(String),
    /// As the words say.
    Other(String),
}

/// The dynamic deny list: packets of these sources, or these flows, are dropped in the XDP program before the rules are asked.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its documentation")]
struct Deny {
    /// The entries, one a line, with a time to live perhaps; relative to the config file. It is followed while xfwd runs.
    file: String,
}

/// The order of the stages. Without it a packet passes all that have a section: `filter`, registered ones, `balance`, `bounce`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its documentation")]
struct Pipeline {
    /// Stages in the order in which a packet passes them; what is not named is not used, with a warning.
    stages: Vec<String>,
}

/// All sections, in the order of the reference.
pub fn sections() -> Vec<Section> {
    let sections = vec![
        of::<Dataplane>("[dataplane]", &["dataplane"], "/dataplane", &[]),
        filter(),
        of::<Deny>("[deny]", &["deny"], "/deny_file", &[]),
        of::<Service>(
            "[[service]]",
            &["service"],
            "/services/0",
            &[("port", "ports"), ("backend", "backends")],
        ),
        of::<HealthCheck>(
            "[service.health]",
            &["service", "health"],
            "/services/0/health",
            &[("type", "kind")],
        ),
        of::<Backend>("[[service.backend]]", &["service", "backend"], "/services/0/backends/0", &[]),
        of::<BalanceSettings>("[balance]", &["balance"], "/balance", &[]),
        of::<NatSettings>("[nat]", &["nat"], "/nat", &[]),
        of::<Bounce>("[bounce]", &["bounce"], "/bounce", &[]),
        of::<Pipeline>("[pipeline]", &["pipeline"], "/pipeline", &[]),
    ];
    for known in Place(&[]).known() {
        assert!(
            sections.iter().any(|section| section.place.0 == [known.as_str()]),
            "the section `{known}` is not in `sections()` of src/config/reference/model.rs"
        );
    }
    sections
}

/// A section whose keys are the fields of `T`, but for those that have another name there.
fn of<T: JsonSchema>(
    header: &'static str,
    path: &'static [&'static str],
    in_plan: &str,
    renamed: &[(&str, &str)],
) -> Section {
    let (place, schema) = (Place(path), schema_for!(T));
    let defaults = least_plan().pointer(in_plan).cloned().unwrap_or_default();
    let key = |name: String| {
        let field = renamed.iter().find(|(key, _)| *key == name).map_or(name.as_str(), |(_, field)| field);
        let property = schema.pointer(&format!("/properties/{field}"));
        let property =
            property.unwrap_or_else(|| panic!("{} has no field `{field}` for {header}", T::schema_name()));
        let is_required = place.requires(&name);
        let only = only_with(place, &name).map(|types| format!(" Only with {types}.")).unwrap_or_default();
        Key {
            is_required,
            default: if is_required { None } else { literal(&defaults[field]) },
            holds: holds(place, header, &name, property, &schema),
            meaning: prose(property) + &only,
            names: vec![name],
        }
    };
    let keys = place.known().into_iter().map(key).collect();
    Section { header, place, meaning: prose(schema.as_value()), keys }
}

/// The rules of the filter are explained by the command, too.
fn filter() -> Section {
    let place = Place(&["filter"]);
    let key = |field: &crate::stages::filter::fields::Field| Key {
        names: field.key.split(", ").map(str::to_owned).collect(),
        is_required: place.requires(field.key),
        default: None,
        holds: Holds::Other(field.holds.to_owned()),
        meaning: field.meaning.to_owned(),
    };
    Section {
        header: "[[filter]]",
        place,
        meaning: GENERAL.to_owned(),
        keys: FIELDS.iter().map(key).collect(),
    }
}

fn holds(place: Place, header: &str, key: &str, property: &Json, schema: &Schema) -> Holds {
    if let Some(words) = words_of(property, schema) {
        return Holds::Word(words);
    }
    let kind = place.kind(key);
    let with = |texts: Option<String>| texts.map(|texts| format!(", {texts}")).unwrap_or_default();
    match kind.as_str() {
        "`true` or `false`" => Holds::Flag,
        "an integer" => {
            let bounds = place.bounds(key).unwrap_or_else(|| panic!("{key} has no bounds"));
            Holds::Number { bounds, shape: place.shape(key, bounds.0 + 1) }
        }
        "a string" => Holds::Text(kind.clone() + &with(place.texts(key, false))),
        "an array of strings" => Holds::Texts(kind.clone() + &with(place.texts(key, true))),
        "a table" | "an array of tables" => {
            let name = header.trim_matches(['[', ']']);
            let (open, close) = if kind == "a table" { ("[", "]") } else { ("[[", "]]") };
            Holds::Section(format!("{open}{name}.{key}{close}"))
        }
        time if time.starts_with("a time") => Holds::Time(place.times(key).unwrap()),
        _ => match place.bounds(key) {
            Some((low, high)) => Holds::Other(format!("{kind}; {low} to {high}")),
            None => Holds::Other(kind),
        },
    }
}

/// The words of an enum, each with its documentation, if the property is one.
fn words_of(property: &Json, schema: &Schema) -> Option<Vec<(String, String)>> {
    let reference = property["$ref"].as_str()?.strip_prefix('#')?;
    let variants = schema.pointer(reference)?["oneOf"].as_array()?;
    let word = |variant: &Json| (variant["const"].as_str().unwrap().to_owned(), prose(variant));
    Some(variants.iter().map(word).collect())
}

/// The health checks that have the key, if not all do.
fn only_with(place: Place, key: &str) -> Option<String> {
    if place.0 != ["service", "health"] {
        return None;
    }
    let kinds = HealthKind::ALL.iter().map(|kind| kind.name());
    let (without, with): (Vec<_>, Vec<_>) = kinds.partition(|kind| place.is_useless(key, "type", kind));
    let named: Vec<String> = with.iter().map(|kind| format!("`{kind}`")).collect();
    (!without.is_empty()).then(|| format!("`type` {}", named.join(", ")))
}

/// A value of the plan as it would stand in the file.
fn literal(value: &Json) -> Option<String> {
    let time = |value: &Json| {
        let (secs, nanos) = (value["secs"].as_u64()?, value["nanos"].as_u64()?);
        Some(format!("\"{}\"", duration::show(std::time::Duration::new(secs, nanos as u32))))
    };
    let range = |value: &Json| match (value["start"].as_u64()?, value["end"].as_u64()?) {
        (start, end) if start == end => Some(start.to_string()),
        (start, end) => Some(format!("\"{start}-{end}\"")),
    };
    match value {
        Json::Null => None,
        Json::Array(values) if values.is_empty() => None,
        Json::Array(values) => {
            let values: Option<Vec<String>> = values.iter().map(literal).collect();
            Some(format!("[{}]", values?.join(", ")))
        }
        Json::Object(_) => time(value).or_else(|| range(value)),
        plain => Some(plain.to_string()),
    }
}

/// The documentation of a type, field or variant, for who writes a config file: variants by their word there.
fn prose(documented: &Json) -> String {
    let text = documented["description"].as_str().unwrap_or_else(|| panic!("no documentation: {documented}"));
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (variant, word) in variants() {
        text = text.replace(&format!("[`{variant}`]"), &format!("`{word}`"));
    }
    assert!(words(&text).iter().all(|word| !word.contains("::")), "what is that in a config file? {text}");
    text
}

/// Variants as documentation links to them, and as they stand in the file.
fn variants() -> impl Iterator<Item = (String, String)> {
    fn of<C: Choice + std::fmt::Debug>(name: &str, key: &str) -> Vec<(String, String)> {
        let variant =
            |variant: &C| (format!("{name}::{variant:?}"), format!("{key} = \"{}\"", variant.word()));
        C::ALL.iter().map(variant).collect()
    }
    of::<Forward>("Forward", "forward").into_iter().chain(of::<BackendState>("BackendState", "state"))
}
