//! The lines of the journal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct JournalLine {
    /// The version of this format.
    pub(crate) version: u32,
    /// The time, in UTC, as RFC 3339 writes it.
    pub(crate) time: String,
    /// What happened.
    pub(crate) event: JournalEvent,
    /// The policies that were applied, as a policy file; null for the other events.
    pub(crate) policies: Option<String>,
}

/// An event of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JournalEvent {
    /// Policies were applied.
    Applied,
    /// The last record was undone (`apply --confirm`): what was installed before it is installed again.
    Undone,
    /// The policies were removed.
    Removed,
}
