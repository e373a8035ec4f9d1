//! The schema of the policy file, with its keys as JSON has them, from the table of keys.

use ephport_core::Timeouts;
use ephport_core::policy::key::{Group, Key, Kind};
use ephport_core::policy::keys::KEYS;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// The schema of policy files.
pub(super) fn schema() -> Schema {
    let targets = KEYS.iter().filter(|key| key.group == Group::Target);
    let one_of: Vec<_> = targets.map(|key| json!({ "required": [key.name] })).collect();
    let properties = KEYS.iter().map(|key| (key.name.to_string(), property(key)));
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "PolicyFile",
        "description": "A policy file: policies in order of precedence.",
        "type": "object",
        "properties": {
            "policy": { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/Policy" } },
        },
        "required": ["policy"],
        "additionalProperties": false,
        "$defs": {
            "Policy": {
                "description": "A policy, with one key for its permitted ports.",
                "type": "object",
                "properties": properties.collect::<Map<_, _>>(),
                "oneOf": one_of,
                "additionalProperties": false,
            },
        },
    })
}

/// The schema of a policy's keys as they were written: each is there, with null for no value.
pub(super) fn written(_: &mut SchemaGenerator) -> Schema {
    let json_name = |key: &Key| key.name.replace('-', "_");
    let properties = KEYS.iter().map(|key| (json_name(key), json!({ "description": key.help })));
    json_schema!({
        "type": "object",
        "properties": properties.collect::<Map<_, _>>(),
        "required": KEYS.iter().map(json_name).collect::<Vec<_>>(),
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut schema = match key.kind {
        Kind::Switch => json!({ "type": "boolean" }),
        Kind::List => json!({
            "anyOf": [text(key), { "type": "array", "items": text(key) }],
        }),
        Kind::Table => json!({
            "anyOf": [text(key), {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {
                    "type": "integer", "minimum": 1, "maximum": Timeouts::MAX_SECONDS,
                },
            }],
        }),
        Kind::Text => text(key),
    };
    schema["description"] = key.help.into();
    if !key.default.is_empty() {
        schema["default"] = match key.kind {
            Kind::Switch => (key.default == "true").into(),
            Kind::List | Kind::Table | Kind::Text => key.default.into(),
        };
    }
    schema
}

fn text(key: &Key) -> Value {
    let words: Vec<_> = key.words.iter().map(|(word, _)| *word).collect();
    match (key.group, words.is_empty()) {
        (Group::Name, _) => {
            json!({ "type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,31}$" })
        }
        (_, true) => json!({ "type": "string", "minLength": 1 }),
        (_, false) => json!({ "type": "string", "enum": words }),
    }
}
