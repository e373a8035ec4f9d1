//! The JSON documents that commands print, and their schemas.
//!
//! A document's `version` is incremented when a key is removed or changes its meaning, and not for a
//! new key.

mod doctor;
mod guard;
mod import;
mod journal;
mod parts;
mod policy_file;
mod usage;

pub(crate) use doctor::{
    Doctor as DoctorDocument, Finding, NatChain as NatChainDocument, Uplink as UplinkDocument,
};
pub(crate) use guard::{LogLevel, LogLine};
pub(crate) use import::{ImportDocument, ImportNote};
pub(crate) use journal::{JournalEvent, JournalLine};
pub(crate) use parts::{
    Difference, OpenConnections, PolicyDocument, PolicyStatus, PortRange, RuleDocument, Step,
    ports, rules,
};
use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
pub(crate) use usage::{
    ConntrackDocument, DestinationDocument, OutsideConnection, OutsideDocument,
    PolicyUsageDocument, SourceDocument, UsageDocument, WhoseDocument,
};

/// The version of all documents.
pub(crate) const VERSION: u32 = 1;

/// The schema of a document, by its name.
pub(crate) fn schema(name: Name) -> Schema {
    match name {
        Name::Apply => printed::<Apply>(),
        Name::Confirm => printed::<Confirm>(),
        Name::Remove => printed::<Remove>(),
        Name::Status => printed::<Status>(),
        Name::Diff => printed::<Diff>(),
        Name::Show => printed::<Show>(),
        Name::Explain => printed::<Explain>(),
        Name::Import => printed::<ImportDocument>(),
        Name::Demo => printed::<Demo>(),
        Name::Usage => printed::<UsageDocument>(),
        Name::Outside => printed::<OutsideDocument>(),
        Name::Whose => printed::<WhoseDocument>(),
        Name::Doctor => printed::<DoctorDocument>(),
        Name::Guard => printed::<LogLine>(),
        Name::Journal => printed::<JournalLine>(),
        Name::Message => printed::<Message>(),
        Name::PolicyFile => policy_file::schema(),
    }
}

/// The schema of a document that is printed: each key is there, with null for no value.
fn printed<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<T>()
}

/// The name of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Output of `apply --json`
    Apply,
    /// Output of `confirm --json`
    Confirm,
    /// Output of `remove --json`
    Remove,
    /// Output of `status --json`
    Status,
    /// Output of `diff --json`
    Diff,
    /// Output of `show --json`
    Show,
    /// Output of `explain --json`
    Explain,
    /// Output of `import NAME --json`
    Import,
    /// Output of `demo --json`
    Demo,
    /// Output of `usage --json`
    Usage,
    /// Output of `usage --outside --json`
    Outside,
    /// Output of `whose --json`
    Whose,
    /// Output of `doctor --json`
    Doctor,
    /// One line of standard error of `guard --json`
    Guard,
    /// One line of the journal of `apply --journal`
    Journal,
    /// One line of standard error of another command with `--json`
    Message,
    /// The policy file, as JSON has it
    PolicyFile,
}

/// The result of `apply`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Apply {
    /// The version of this format.
    pub(crate) version: u32,
    /// What was done; with `--dry-run`, what would be done.
    pub(crate) result: ApplyResult,
    /// Whether nothing was changed because of `--dry-run`.
    pub(crate) dry_run: bool,
    /// The end of the trial; null without `--confirm`, and if the table was as desired.
    pub(crate) confirmation: Option<Confirmation>,
    /// The policies, in order of precedence.
    pub(crate) policies: Vec<PolicyDocument>,
    /// What the policies do not do, or do without being asked, on this host.
    pub(crate) warnings: Vec<Warning>,
}

/// A warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Warning {
    /// The stable name of this kind of warning.
    kind: String,
    /// The policy that it concerns.
    policy: Option<String>,
    /// The warning as a sentence.
    message: String,
}

impl Warning {
    pub(crate) fn new(kind: &str, policy: Option<String>, message: &impl ToString) -> Self {
        Self { kind: kind.into(), policy, message: message.to_string() }
    }

    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<&ephport_core::Warning> for Warning {
    fn from(warning: &ephport_core::Warning) -> Self {
        Self::new(warning.name(), Some(warning.policy().to_string()), warning)
    }
}

/// The end of `apply --confirm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Confirmation {
    /// The policies stay.
    Confirmed,
    /// No confirmation came: the table is as before.
    Undone,
    /// Another process changed the policies or removed the table meanwhile: nothing was undone.
    Superseded,
}

/// A change of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) enum ApplyResult {
    /// The table was as desired.
    #[serde(rename = "unchanged")]
    Unchanged,
    /// There was no table.
    #[serde(rename = "installed")]
    Installed,
    /// Single rules of the table were changed.
    #[serde(rename = "updated")]
    Updated,
    /// The table was replaced in one transaction.
    #[serde(rename = "replaced")]
    Replaced,
    /// There is no table.
    #[serde(rename = "would install")]
    WouldInstall,
    /// Single rules of the table would change.
    #[serde(rename = "would update")]
    WouldUpdate,
    /// The table would be replaced in one transaction.
    #[serde(rename = "would replace")]
    WouldReplace,
}

impl ApplyResult {
    pub(crate) fn new(applied: ephport_nft::Applied, is_dry_run: bool) -> Self {
        use ephport_nft::Applied;
        match (applied, is_dry_run) {
            (Applied::Unchanged, _) => Self::Unchanged,
            (Applied::Installed, false) => Self::Installed,
            (Applied::Installed, true) => Self::WouldInstall,
            (Applied::Updated, false) => Self::Updated,
            (Applied::Updated, true) => Self::WouldUpdate,
            (Applied::Replaced, false) => Self::Replaced,
            (Applied::Replaced, true) => Self::WouldReplace,
        }
    }

    /// The result as a verb.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Installed => "installed",
            Self::Updated => "updated",
            Self::Replaced => "replaced",
            Self::WouldInstall => "would install",
            Self::WouldUpdate => "would update",
            Self::WouldReplace => "would replace",
        }
    }
}

/// The result of `confirm`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Confirm {
    /// The version of this format.
    pub(crate) version: u32,
    /// What was confirmed.
    pub(crate) result: ConfirmResult,
}

/// A confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ConfirmResult {
    /// The policies stay.
    Confirmed,
    /// Another process changed the policies or removed the table since they were applied.
    Superseded,
    /// No `apply --confirm` waits in this network namespace.
    None,
}

/// The result of `remove`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Remove {
    /// The version of this format.
    pub(crate) version: u32,
    /// What was done.
    pub(crate) result: RemoveResult,
}

/// A removal.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RemoveResult {
    /// The table was removed.
    Removed,
    /// There was no table.
    Absent,
}

/// The installed table.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Status {
    /// The version of this format.
    pub(crate) version: u32,
    /// The state of the table.
    pub(crate) state: State,
    /// The version of ephport-nft that wrote the table.
    pub(crate) written_by: Option<String>,
    /// The checksum of the table when it was written, in hexadecimal.
    pub(crate) fingerprint: Option<String>,
    /// The policy file from which the table was applied.
    pub(crate) policy_file: Option<String>,
    /// The reasons why the policies have no effect although the table is intact.
    pub(crate) void: Vec<Reason>,
    /// The facts of the host that are not those for which the table was applied.
    pub(crate) outdated: Vec<Reason>,
    /// The differences from what was applied, as far as they are known.
    pub(crate) drift: Vec<Difference>,
    /// The count of connections of the network namespace that conntrack could not insert: no port was free, or
    /// another one had the same tuple. Null if there is no table of ephport, or it cannot be read.
    pub(crate) insert_failed: Option<u64>,
    /// The policies in the table, in order of precedence.
    pub(crate) policies: Vec<PolicyStatus>,
    /// The rules of the table.
    pub(crate) rules: Vec<RuleDocument>,
}

/// The state of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// There is no table.
    Absent,
    /// The table belongs to another program.
    Foreign,
    /// The table was changed after it was applied.
    Drifted,
    /// The table is as applied, but something else makes it ineffective.
    Void,
    /// The table is as applied, but the host has other uplinks, ports or addresses now.
    Outdated,
    /// The table is as applied.
    Intact,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Foreign => "foreign",
            Self::Drifted => "drifted",
            Self::Void => "void",
            Self::Outdated => "outdated",
            Self::Intact => "intact",
        }
    }
}

/// A reason why a policy has not the desired effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Reason {
    /// The stable name of the reason.
    kind: String,
    /// The reason as a sentence.
    pub(crate) message: String,
}

impl Reason {
    pub(crate) fn new(kind: &str, message: &impl ToString) -> Self {
        Self { kind: kind.into(), message: message.to_string() }
    }
}

/// The difference between the installed table and the policies.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Diff {
    /// The version of this format.
    pub(crate) version: u32,
    /// What `apply` would do.
    pub(crate) result: ApplyResult,
    /// The differences, one for each object.
    pub(crate) differences: Vec<Difference>,
    /// The lines of the table that `apply` would remove, in nft's syntax.
    pub(crate) removed: Vec<String>,
    /// The lines of the table that `apply` would add, in nft's syntax.
    pub(crate) added: Vec<String>,
}

/// The policies, and the rules that implement them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Show {
    /// The version of this format.
    pub(crate) version: u32,
    /// The policies, in order of precedence.
    pub(crate) policies: Vec<PolicyDocument>,
    /// The rules.
    pub(crate) rules: Vec<RuleDocument>,
}

/// What happens to one connection.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Explain {
    /// The version of this format.
    pub(crate) version: u32,
    /// The connection's opening packet.
    pub(crate) flow: String,
    /// The translation; null if no policy translates the connection.
    pub(crate) translation: Option<Translation>,
    /// The policies before the one that translates the connection; without one, all.
    pub(crate) non_matches: Vec<NonMatch>,
    /// What enforcement does; null if no policy enforces its ports on the connection.
    pub(crate) enforcement: Option<Enforcement>,
    /// The rules that the connection's packet can pass, one list for each random outcome.
    pub(crate) program: Vec<Vec<Step>>,
    /// Whether the program does what the policies mean.
    pub(crate) agrees: bool,
    /// Rules of other tables that may decide on the connection instead.
    pub(crate) warnings: Vec<Warning>,
}

/// The translation of a connection.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Translation {
    /// The policy that translates the connection.
    pub(crate) policy: String,
    /// The source ports that the connection can get.
    pub(crate) ports: Vec<PortRange>,
    /// The connection's own port, where it is kept while it is free.
    pub(crate) keep: Option<u16>,
    /// `masquerade`, `keep` or the new source address.
    pub(crate) address: String,
    /// The timeouts that are not those of the host, in seconds by nft's names of states, like
    /// `{"unreplied": 2}`.
    pub(crate) timeouts: BTreeMap<String, u32>,
}

/// A policy that does not translate a connection.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NonMatch {
    /// The policy.
    pub(crate) policy: String,
    /// The stable name of the reason.
    pub(crate) kind: String,
    /// The reason as a sentence.
    pub(crate) message: String,
}

/// Enforcement of a policy on a connection.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Enforcement {
    /// The policy that enforces.
    pub(crate) policy: String,
    /// The source ports that the policy permits.
    pub(crate) permitted: Vec<PortRange>,
    /// The source ports that the connection can get and is dropped with.
    pub(crate) dropped: Vec<PortRange>,
    /// Whether the connection is dropped with each port that it can get.
    pub(crate) drops_all: bool,
}

/// The source ports that a server saw before and after a policy was applied.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Demo {
    /// The version of this format.
    pub(crate) version: u32,
    /// The connections without the policy.
    pub(crate) before: Vec<Group>,
    /// The connections with the policy.
    pub(crate) after: Vec<Group>,
    /// Whether the policy permits each port of `after`.
    pub(crate) all_inside: bool,
}

/// The connections of one host over one protocol and address family.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Group {
    /// `container` or `host`.
    pub(crate) opener: String,
    /// `tcp` or `udp`.
    pub(crate) protocol: String,
    /// `ipv4` or `ipv6`.
    pub(crate) family: String,
    /// The source ports that the server saw, ascending.
    pub(crate) source_ports: Vec<u16>,
    /// The count of source ports that the policy permits.
    pub(crate) inside: usize,
}

/// A message on standard error.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Message {
    /// The version of this format.
    version: u32,
    /// Its severity.
    level: Level,
    /// The stable name of this kind of message.
    kind: String,
    /// The policy that it concerns.
    policy: Option<String>,
    /// The message as a sentence.
    #[expect(clippy::struct_field_names, reason = "the key of the JSON document")]
    message: String,
}

impl Message {
    pub(crate) fn new(level: Level, kind: &str, policy: Option<String>, message: &str) -> Self {
        Self { version: VERSION, level, kind: kind.into(), policy, message: message.into() }
    }
}

/// The severity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// The command failed.
    Error,
    /// The command continues; something has no effect.
    Warning,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}
