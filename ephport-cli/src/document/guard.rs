//! The log lines of `guard`.

use schemars::JsonSchema;
use serde::Serialize;

/// A log line of `guard --json`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct LogLine {
    /// The version of this format.
    pub(crate) version: u32,
    /// The time, in UTC, as RFC 3339 writes it.
    pub(crate) time: String,
    /// The severity.
    pub(crate) level: LogLevel,
    /// The stable name of the event.
    pub(crate) event: &'static str,
    /// What caused it: `start`, `file`, `signal`, `host` or `recheck`; of an end, the signal.
    pub(crate) cause: Option<String>,
    /// What was done: `installed`, `updated`, `replaced`, `unchanged`.
    pub(crate) result: Option<&'static str>,
    /// The stable name of a warning or of a failure.
    pub(crate) kind: Option<String>,
    /// The policy that it concerns.
    pub(crate) policy: Option<String>,
    /// The thread that changed the table, as the initial pid namespace numbers it.
    pub(crate) thread: Option<u32>,
    /// The name of that thread, at most 15 bytes.
    pub(crate) thread_name: Option<String>,
    /// The port id of the netlink socket that changed the table.
    pub(crate) port_id: Option<u32>,
    /// The time from its notice to its end, in microseconds.
    pub(crate) microseconds: Option<u64>,
    /// How often the table was restored since the start.
    pub(crate) restores: Option<u64>,
    /// The event as a sentence.
    pub(crate) message: Option<String>,
}

impl LogLine {
    /// The keys of a line of text, in their order.
    pub(crate) const KEYS: [&str; 13] = [
        "time",
        "level",
        "event",
        "cause",
        "result",
        "kind",
        "policy",
        "thread",
        "thread_name",
        "port_id",
        "microseconds",
        "restores",
        "message",
    ];
}

/// The severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// An event.
    Info,
    /// Another process changed the table, or something has no effect.
    Warning,
    /// The policy is not as it should be.
    Error,
}
