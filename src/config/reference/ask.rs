//! Asks the reader of the config what a key may hold, by files with one thing wrong in each: so the reference says what the error
//! messages say, and neither is written twice.

use std::path::Path;

use serde_json::Value as Json;
use toml::{Table, Value};

use crate::config::{ConfigError, Diagnostic, Plan, parse};

/// Every section, with no key but those that must be there.
const LEAST: &str = r#"
[dataplane]
[balance]
[bounce]
[deny]
file = "deny.txt"
[nat]
addresses = ["198.18.0.2"]
[pipeline]
stages = ["filter", "balance", "bounce"]
[[filter]]
name = "rule"
action = "drop"
[[service]]
name = "web"
vip = "198.18.10.1"
protocol = "tcp"
port = 80
forward = "nat"
[service.health]
type = "tcp"
[[service.backend]]
address = "198.18.0.11"
"#;

/// Nearest to no key.
const UNKNOWN: &str = "zzzzzzzzzzzzzzzz";

/// One section of the file, by the keys that lead to it; the file itself is the empty path.
#[derive(Clone, Copy)]
pub struct Place(pub &'static [&'static str]);

fn least() -> Table {
    LEAST.parse().unwrap()
}

/// The plan of the least file.
pub fn least_plan() -> Json {
    serde_json::to_value(read(&least()).unwrap()).unwrap()
}

fn read(document: &Table) -> Result<Plan, Vec<Diagnostic>> {
    // As a file of this directory, where a deny list is.
    let name = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/reference.toml");
    match parse(&name.display().to_string(), &document.to_string()) {
        Ok(plan) => Ok(plan),
        Err(ConfigError::Invalid(diagnostics)) => Err(diagnostics),
        Err(error) => panic!("{error}"),
    }
}

impl Place {
    fn in_table<'t>(&self, document: &'t mut Table) -> &'t mut Table {
        self.0.iter().fold(document, |table, key| match table.get_mut(*key) {
            Some(Value::Table(table)) => table,
            Some(Value::Array(tables)) => tables[0].as_table_mut().unwrap(),
            _ => panic!("the least file has no {:?}", self.0),
        })
    }

    /// The errors of the least file changed in one thing.
    fn errors(&self, change: impl FnOnce(&mut Table)) -> Vec<Diagnostic> {
        let mut document = least();
        change(self.in_table(&mut document));
        read(&document).err().unwrap_or_default()
    }

    fn errors_with(&self, key: &str, value: impl Into<Value>) -> Vec<Diagnostic> {
        self.errors(|table| {
            table.insert(key.to_owned(), value.into());
        })
    }

    /// The first label that an error has when `key` is `value`, if it begins with one of these.
    fn label(&self, key: &str, value: impl Into<Value>, beginnings: &[&str]) -> Option<String> {
        let labels = self.errors_with(key, value).into_iter().filter_map(|error| error.label);
        labels.into_iter().find(|label| beginnings.iter().any(|beginning| label.starts_with(beginning)))
    }

    /// The keys of the section, or the sections of the file.
    pub fn known(&self) -> Vec<String> {
        let errors = self.errors_with(UNKNOWN, 1);
        let help = errors.iter().find_map(|error| error.help.as_deref()).unwrap();
        words(help.split_once(": ").unwrap().1)
    }

    /// Whether the section must have `key`.
    pub fn requires(&self, key: &str) -> bool {
        let errors = self.errors(|table| {
            table.remove(key);
        });
        let lacks = format!("lacks the key `{key}`");
        errors.iter().any(|error| error.message.contains(&lacks) || error.message.ends_with("has no backend"))
    }

    /// What `key` must be, in the words of the message about a value of another type.
    pub fn kind(&self, key: &str) -> String {
        let beginning = format!("`{key}` must be ");
        let errors = self.errors_with(key, 0.5);
        let kind = errors.iter().find_map(|error| error.message.strip_prefix(&beginning));
        kind.unwrap_or_else(|| panic!("{key} takes 0.5: {errors:?}")).to_owned()
    }

    /// The least and the largest number.
    pub fn bounds(&self, key: &str) -> Option<(u64, u64)> {
        let label = self.label(key, -1, &["must be "])?;
        let (low, high) = label.strip_prefix("must be ")?.split_once(" to ")?;
        Some((low.parse().ok()?, high.parse().ok()?))
    }

    /// What else a number must be.
    pub fn shape(&self, key: &str, within: u64) -> Option<&'static str> {
        let errors = self.errors_with(key, i64::try_from(within).unwrap());
        ["a power of two", "a prime"]
            .into_iter()
            .find(|shape| errors.iter().any(|error| error.message.contains(shape)))
    }

    /// The shortest and the longest time.
    pub fn times(&self, key: &str) -> Option<String> {
        self.label(key, "0ms", &["must be "])?.strip_prefix("must be ").map(str::to_owned)
    }

    /// Texts that it could be, by example or all of them.
    pub fn texts(&self, key: &str, in_array: bool) -> Option<String> {
        let text = Value::from("?");
        let value = if in_array { Value::Array(vec![text]) } else { text };
        let label = self.label(key, value, &["expected one such as ", "known: "])?;
        Some(label.replace("expected one ", "").replace("known: ", ""))
    }

    /// Whether `key` means nothing when another key has this value.
    pub fn is_useless(&self, key: &str, other: &str, value: &str) -> bool {
        let errors = self.errors(|table| {
            table.insert(other.to_owned(), value.into());
            table.insert(key.to_owned(), 1.into());
        });
        errors.iter().any(|error| error.message.starts_with(&format!("`{key}` means nothing for ")))
    }
}

/// The words in backticks.
pub fn words(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
