//! The JSON schema of the config file, for editors: keys, documentation, words, bounds. What hangs together is for `xfwd check`.

use serde_json::{Map, Value as Json, json};

use super::model::{Holds, Key, Section};

pub fn text(sections: &[Section]) -> String {
    serde_json::to_string_pretty(&of(sections)).unwrap() + "\n"
}

pub fn of(sections: &[Section]) -> Json {
    let mut root = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "The config file of xfwd",
        "type": "object",
        // Stages that others register have sections, too.
        "additionalProperties": true,
        "properties": {},
    });
    // Sections stand in front of those that lie in them.
    for section in sections {
        let mut properties = Map::new();
        for key in &section.keys {
            properties.extend(key.names.iter().map(|name| (name.clone(), property(key))));
        }
        let required: Vec<&String> =
            section.keys.iter().filter(|key| key.is_required).flat_map(|key| &key.names).collect();
        let table = json!({
            "type": "object",
            "description": section.meaning,
            "additionalProperties": false,
            "required": required,
            "properties": properties,
        });
        let is_array = section.header.starts_with("[[");
        let (name, above) = section.place.0.split_last().unwrap();
        let parent = above.iter().fold(&mut root, |table, key| inside(&mut table["properties"][key]));
        parent["properties"][name] =
            if is_array { json!({ "type": "array", "items": table }) } else { table };
    }
    root
}

/// The table, or those of the array.
fn inside(property: &mut Json) -> &mut Json {
    if property["items"].is_object() { &mut property["items"] } else { property }
}

fn property(key: &Key) -> Json {
    let mut property = match &key.holds {
        Holds::Word(words) => {
            let words: Vec<&String> = words.iter().map(|(word, _)| word).collect();
            json!({ "type": "string", "enum": words })
        }
        Holds::Flag => json!({ "type": "boolean" }),
        Holds::Number { bounds: (low, high), .. } => {
            json!({ "type": "integer", "minimum": low, "maximum": high })
        }
        Holds::Time(_) => json!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$" }),
        Holds::Text(_) => json!({ "type": "string" }),
        Holds::Texts(_) => json!({ "type": "array", "items": { "type": "string" } }),
        Holds::Section(_) | Holds::Other(_) => json!({}),
    };
    property["description"] = key.meaning.clone().into();
    if let Some(literal) = &key.default {
        let default: Json = toml::from_str(&format!("it = {literal}")).unwrap();
        property["default"] = default["it"].clone();
    }
    property
}

/// Whether types, keys and words of `value` are as `schema` has them: as much of JSON Schema as is used here.
pub fn check(schema: &Json, value: &Json) -> Result<(), String> {
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        _ => true,
    };
    let words = schema["enum"].as_array();
    if !is_of_type || words.is_some_and(|words| !words.contains(value)) {
        return Err(value.to_string());
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        if value.get(key).is_none() {
            return Err(format!("{key}: missing"));
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(key) {
            Some(property) => check(property, value).map_err(|wrong| format!("{key}: {wrong}"))?,
            None if schema["additionalProperties"] == false => return Err(format!("{key}: unknown")),
            None => {}
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&schema["items"], item).map_err(|wrong| format!("{index}: {wrong}"))?;
    }
    Ok(())
}
