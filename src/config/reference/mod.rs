//! The configuration reference of the guide and the JSON schema for editors, made from the types and from what the reader answers.
//!
//! ```text
//! XFWD_UPDATE_REFERENCE=1 cargo test --lib config::reference
//! ```

mod ask;
mod model;
mod schema;

use std::fmt::Write;
use std::path::Path;

use model::{Holds, Key, Section};

const HEAD: &str = "\
<!-- Written by `XFWD_UPDATE_REFERENCE=1 cargo test --lib config::reference`: the texts are doc comments in `src/config`. -->

# Configuration reference

Every section and key of the config file, as this version reads them. A key that has no default and is not required is off, or
left to what its text says. `xfwd check CONFIG` tells what is wrong with a file, with line and column; a
[registered stage](writing-a-stage.md) adds a section of its own.

Times have a unit: `\"200ms\"`, `\"30s\"`, `\"15m\"`, `\"2h\"`, `\"1d\"`. For editors there is a JSON schema,
[config.schema.json](config.schema.json), made from the same: with [taplo](https://taplo.tamasfe.dev), a first line `#:schema
PATH/config.schema.json` makes it complete and check keys.
";

fn reference(sections: &[Section]) -> String {
    let mut text = HEAD.to_owned();
    for section in sections {
        write!(text, "\n## `{}`\n\n{}\n\n", section.header, section.meaning).unwrap();
        text.push_str("| key | default | may be | meaning |\n|---|---|---|---|\n");
        for key in &section.keys {
            text.push_str(&row(key));
        }
    }
    text
}

fn row(key: &Key) -> String {
    let names: Vec<String> = key.names.iter().map(|name| format!("`{name}`")).collect();
    let default = match &key.default {
        _ if key.is_required => "required".to_owned(),
        Some(value) => format!("`{value}`"),
        None => String::new(),
    };
    let (may_be, more) = match &key.holds {
        Holds::Word(words) => {
            let list: Vec<String> = words.iter().map(|(word, _)| format!("`\"{word}\"`")).collect();
            let meanings = words.iter().map(|(word, meaning)| format!("<br>`{word}`: {meaning}"));
            (list.join(", "), meanings.collect())
        }
        Holds::Flag => ("`true`, `false`".to_owned(), String::new()),
        Holds::Number { bounds: (low, high), shape } => {
            let shape = shape.map(|shape| format!(", {shape}")).unwrap_or_default();
            (format!("{low} to {high}{shape}"), String::new())
        }
        Holds::Time(bounds) => (format!("a time, {bounds}"), String::new()),
        Holds::Section(header) => (format!("`{header}`, see below"), String::new()),
        Holds::Text(words) | Holds::Texts(words) | Holds::Other(words) => (words.clone(), String::new()),
    };
    let cells = [names.join(", "), default, may_be, key.meaning.clone() + &more];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn is_up_to_date(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("XFWD_UPDATE_REFERENCE").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let first =
        text.lines().zip(committed.lines().chain(std::iter::repeat(""))).find(|(now, then)| now != then);
    assert!(
        committed == text,
        "docs/{name} differs from what the types give, first in\n{first:?}\n\
         If that is meant: XFWD_UPDATE_REFERENCE=1 cargo test --lib config::reference"
    );
}

#[test]
fn the_reference_of_the_guide_is_what_the_types_give() {
    is_up_to_date("config-reference.md", &reference(&model::sections()));
}

#[test]
fn the_schema_for_editors_is_what_the_types_give() {
    is_up_to_date("config.schema.json", &schema::text(&model::sections()));
}

/// The blocks of TOML in a page, with the lines that they begin in, but for those that are included from elsewhere.
fn blocks(page: &str) -> Vec<(usize, &str)> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, from)) = rest.split_once("```toml\n") {
        let Some((block, behind)) = from.split_once("```") else { break };
        blocks.push((page[..page.len() - from.len()].lines().count() + 1, block));
        rest = behind;
    }
    blocks.retain(|(_, block)| !block.contains("{{#include"));
    blocks
}

#[test]
fn the_pages_have_only_what_the_schema_knows() {
    let schema = schema::of(&model::sections());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    pages.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    let mut count = 0;
    for page in pages {
        for (line, block) in blocks(&std::fs::read_to_string(&page).unwrap()) {
            let place = format!("{}:{line}", page.display());
            let file: serde_json::Value =
                toml::from_str(block).unwrap_or_else(|error| panic!("{place}: {error}"));
            schema::check(&schema, &file).unwrap_or_else(|wrong| panic!("{place}: {wrong}"));
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}

#[test]
fn the_examples_have_only_what_the_schema_knows() {
    let schema = schema::of(&model::sections());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        // That of the example stages have sections of their own, which the schema lets pass.
        if path.extension().is_some_and(|extension| extension == "toml") {
            let file: serde_json::Value = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            schema::check(&schema, &file).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
    assert_eq!(schema.pointer("/properties/dataplane/properties/ring_size/default"), Some(&2048.into()));
    let wrong = serde_json::json!({ "dataplane": { "ring_size": "large" } });
    assert_eq!(schema::check(&schema, &wrong), Err("dataplane: ring_size: \"large\"".to_owned()));
    let unknown = serde_json::json!({ "bounce": { "layr": "l2" } });
    assert_eq!(schema::check(&schema, &unknown), Err("bounce: layr: unknown".to_owned()));
}
