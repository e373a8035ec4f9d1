//! Errors and warnings as serde writes them: what a program needs of them, and the message.

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::policy::error::PolicyError;
#[cfg(feature = "toml")]
use crate::policy::file::{PolicyFileError, PolicyFileErrorKind};
use crate::policy::warning::Warning;

/// Its name, its policy and its message.
impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_struct("Warning", 3)?;
        parts.serialize_field("name", self.name())?;
        parts.serialize_field("policy", self.policy())?;
        parts.serialize_field("message", &self.to_string())?;
        parts.end()
    }
}

/// The keys at fault and its message.
impl Serialize for PolicyError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_struct("PolicyError", 2)?;
        parts.serialize_field("keys", &self.keys())?;
        parts.serialize_field("message", &self.to_string())?;
        parts.end()
    }
}

/// Its place, the keys at fault and its message.
#[cfg(feature = "toml")]
impl Serialize for PolicyFileError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keys = match &*self.problem {
            PolicyFileErrorKind::Policy { error, .. } => error.keys(),
            PolicyFileErrorKind::OutsidePolicy { key }
            | PolicyFileErrorKind::Type { key, .. }
            | PolicyFileErrorKind::EmptyList { key, .. }
            | PolicyFileErrorKind::Value { key, .. } => vec![*key],
            PolicyFileErrorKind::TwoTargets { first, second, .. } => vec![*first, *second],
            _ => Vec::new(),
        };
        let mut parts = serializer.serialize_struct("PolicyFileError", 4)?;
        parts.serialize_field("line", &self.line)?;
        parts.serialize_field("column", &self.column)?;
        parts.serialize_field("keys", &keys)?;
        parts.serialize_field("message", &self.problem.to_string())?;
        parts.end()
    }
}
