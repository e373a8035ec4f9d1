//! Policies and documents as serde writes them: with the keys and values of policy files.
//!
//! A policy is a map of the keys that differ from their defaults, a document a map with the policies in `policy`: the
//! TOML that serde writes is a policy file. In formats that are not for people, a policy is a list of keys, each with
//! the texts of its value. What is read is checked as in a policy file. Files of blocks are written out.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::policy::file::Document;
use crate::policy::key::{Group, Key, Kind};
use crate::policy::keys::{self, KEYS};
use crate::policy::value::{Input, Value};
use crate::policy::{Policy, PolicySpec, Target};

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let policy = self.without_file();
        let value = |key: &Key| match key.group {
            Group::Name => key.get(policy.spec()),
            _ => key.given(policy.spec()),
        };
        let given: Vec<_> = KEYS.iter().filter_map(|key| Some((key.name, value(key)?))).collect();
        if serializer.is_human_readable() {
            serializer.collect_map(given)
        } else {
            serializer.collect_seq(given.iter().map(|(name, value)| (*name, value.items())))
        }
    }
}

impl Value {
    /// The texts that are read as the value.
    fn items(&self) -> Vec<String> {
        match self {
            Self::List(items) => items.clone(),
            Self::Table(pairs) if !pairs.is_empty() => {
                pairs.iter().map(|(name, number)| format!("{name}={number}")).collect()
            }
            other => vec![other.to_string()],
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Switch(is_on) => serializer.serialize_bool(*is_on),
            Self::List(items) => serializer.collect_seq(items),
            Self::Table(pairs) if !pairs.is_empty() => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                pairs.iter().try_for_each(|(name, number)| map.serialize_entry(name, number))?;
                map.end()
            }
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_map(PolicyVisitor)
        } else {
            deserializer.deserialize_seq(PolicyVisitor)
        }
    }
}

struct PolicyVisitor;

impl<'de> Visitor<'de> for PolicyVisitor {
    type Value = Policy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a policy with the keys of policy files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Policy, A::Error> {
        let mut parts = Parts::new();
        while let Some(name) = map.next_key::<String>()? {
            let key = key(&name)?;
            let value: Written = map.next_value()?;
            if matches!(value, Written::Switch(_)) != (key.kind == Kind::Switch) {
                return Err(de::Error::custom(format!(
                    "{}: expected a value like {}",
                    key.name, key.example
                )));
            }
            let (items, is_list) = value.items();
            parts.set(key, &items, is_list)?;
        }
        parts.policy()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Policy, A::Error> {
        let mut parts = Parts::new();
        while let Some((name, items)) = seq.next_element::<(String, Vec<String>)>()? {
            parts.set(key(&name)?, &items, true)?;
        }
        parts.policy()
    }
}

fn key<E: de::Error>(name: &str) -> Result<&'static Key, E> {
    keys::find(name).ok_or_else(|| {
        let near = keys::near(name).map(|near| format!(": expected {}", near.name));
        E::custom(format!("unknown key `{name}`{}", near.unwrap_or_default()))
    })
}

/// The parts of a policy as they are read.
struct Parts {
    spec: PolicySpec,
    given: Vec<&'static Key>,
}

impl Parts {
    fn new() -> Self {
        Self { spec: PolicySpec::to(Target::Local), given: Vec::new() }
    }

    fn set<E: de::Error>(
        &mut self,
        key: &'static Key,
        items: &[String],
        is_list: bool,
    ) -> Result<(), E> {
        if items.is_empty() {
            return Err(E::custom(format!("{}: an empty list has no meaning", key.name)));
        }
        if self.given.iter().any(|given| given.name == key.name) {
            return Err(E::duplicate_field(key.name));
        }
        self.given.push(key);
        let items = items.iter().map(String::as_str).collect();
        let input = if is_list { Input::list(items) } else { Input::texts(items) };
        key.set(&mut self.spec, &input)
            .map_err(|error| E::custom(format!("{}: {}", key.name, error.error)))
    }

    fn policy<E: de::Error>(self) -> Result<Policy, E> {
        let targets = self.given.iter().filter(|key| key.group == Group::Target).count();
        if !self.given.iter().any(|key| key.group == Group::Name) {
            return Err(E::missing_field("name"));
        }
        if targets != 1 {
            let targets = KEYS.iter().filter(|key| key.group == Group::Target);
            let names: Vec<_> = targets.map(|key| key.name).collect();
            return Err(E::custom(format!("expected exactly one of {}", names.join(", "))));
        }
        Policy::new(self.spec).map_err(E::custom)
    }
}

/// A value as a format for people has it.
enum Written {
    Switch(bool),
    Text(String),
    List(Vec<String>),
}

impl Written {
    /// The texts, and whether they are a list.
    fn items(self) -> (Vec<String>, bool) {
        match self {
            Self::Switch(is_on) => (vec![is_on.to_string()], false),
            Self::Text(text) => (vec![text], false),
            Self::List(items) => (items, true),
        }
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl<'de> Visitor<'de> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false, a list of texts, or a table of numbers")
    }

    fn visit_bool<E>(self, is_on: bool) -> Result<Written, E> {
        Ok(Written::Switch(is_on))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Written, E> {
        Ok(Written::Text(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Written, E> {
        Ok(Written::Text(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Written, E> {
        Ok(Written::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Written, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Written::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
        let mut items = Vec::new();
        while let Some((name, number)) = map.next_entry::<String, u32>()? {
            items.push(format!("{name}={number}"));
        }
        Ok(Written::List(items))
    }
}

/// A document for people: its policies under their name in policy files.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<P> {
    policy: P,
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Fields { policy: self.policies() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::<Vec<Policy>>::deserialize(deserializer)?;
        Self::new(fields.policy).map_err(de::Error::custom)
    }
}
