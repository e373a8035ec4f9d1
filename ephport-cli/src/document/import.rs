//! The document of `import`.

use ephport_core::Policy;
use ephport_core::import::{iptables, nacl};
use schemars::JsonSchema;
use serde::Serialize;

use super::{VERSION, policy_file};

/// The policies that other rules become.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ImportDocument {
    /// The version of this format.
    version: u32,
    /// The policies, in order of precedence; none if the command fails.
    policies: Vec<ImportedPolicy>,
    /// The lines of the input that became no policy, in order.
    skipped: Vec<SkippedLine>,
    /// What was assumed, bounded or disregarded.
    notes: Vec<ImportNote>,
}

/// A policy.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
struct ImportedPolicy(#[schemars(schema_with = "policy_file::written")] serde_json::Value);

/// A line that became no policy.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SkippedLine {
    /// Its number, from 1; of several lines that a backslash joins, the first's.
    line: usize,
    /// Its text.
    rule: String,
    /// The stable name of the kind of reason: `invalid`, `unsupported` or `not-installed`.
    kind: &'static str,
    /// The reason as a sentence.
    message: String,
    /// Policies over which the rule wins in iptables, and not over the policies; at most eight.
    shadows: Vec<String>,
    /// Whether there are more such policies.
    has_more_shadows: bool,
}

/// What was assumed, bounded or disregarded.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ImportNote {
    /// The stable name of this kind of note.
    kind: &'static str,
    /// The lines of the input that it concerns; null if it is not about lines.
    lines: Option<LineRange>,
    /// The note as a sentence.
    pub(crate) message: String,
}

/// Lines of the input.
#[derive(Debug, Serialize, JsonSchema)]
struct LineRange {
    /// The first, from 1.
    first: usize,
    /// The last.
    last: usize,
}

impl ImportDocument {
    pub(crate) fn new(
        policies: &[Policy],
        skipped: &[iptables::Skipped],
        notes: Vec<ImportNote>,
    ) -> Self {
        let written = |policy: &Policy| ImportedPolicy(policy.to_json());
        Self {
            version: VERSION,
            policies: policies.iter().map(written).collect(),
            skipped: skipped.iter().map(SkippedLine::from).collect(),
            notes,
        }
    }
}

impl From<&iptables::Skipped> for SkippedLine {
    fn from(skipped: &iptables::Skipped) -> Self {
        Self {
            line: skipped.line,
            rule: skipped.rule.to_string(),
            kind: skipped.reason.name(),
            message: skipped.reason.to_string(),
            shadows: skipped.shadows.policies.iter().map(ToString::to_string).collect(),
            has_more_shadows: skipped.shadows.has_more,
        }
    }
}

impl From<&iptables::Note> for ImportNote {
    fn from(note: &iptables::Note) -> Self {
        let hint = match note {
            iptables::Note::AssumedFamily { .. } => "; name it with --ipv4 or --ipv6",
            _ => "",
        };
        let (first, last) = note.lines();
        let lines = Some(LineRange { first, last });
        Self { kind: note.name(), lines, message: format!("{note}{hint}") }
    }
}

impl ImportNote {
    /// The note about network ACLs, which `context` precedes.
    pub(crate) fn nacl(context: &str, note: &nacl::Note) -> Self {
        Self { kind: note.name(), lines: None, message: format!("{context}{note}") }
    }
}
