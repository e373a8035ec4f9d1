//! What is different, as a sentence.

use std::fmt;

use crate::table::Fingerprint;

/// What is different at a place. Rules and their statements are in nft's words, and from where nft
/// has none as bytecode.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The table, chain or set is gone.
    Removed,
    /// The chain or set is nothing that the policy asks for.
    Added,
    /// The table is switched off (`NFT_TABLE_F_DORMANT`).
    Dormant,
    /// The table has other flags (`NFT_TABLE_F_*`).
    TableFlags {
        /// The flags that it has.
        found: u32,
        /// Those that it should have.
        expected: u32,
    },
    /// A base chain runs earlier or later among those of its hook.
    ChainPriority {
        /// Its priority.
        found: i32,
        /// That which it should have.
        expected: i32,
    },
    /// A chain has another type, hook or policy.
    ChainChanged {
        /// What it has.
        found: String,
        /// What it should have.
        expected: String,
    },
    /// A chain has lost all of its rules.
    Emptied {
        /// How many it should have.
        rules: usize,
    },
    /// The rule is gone.
    RuleRemoved {
        /// The rule.
        rule: String,
    },
    /// The rule is none of the policy's.
    RuleAdded {
        /// The rule.
        rule: String,
    },
    /// The rule stands elsewhere in its chain.
    Moved {
        /// The number where it should stand, from 1.
        expected: usize,
    },
    /// `masq` without `NF_NAT_RANGE_PROTO_SPECIFIED`: the kernel takes its ports and ignores them,
    /// and nft lists them as if they held.
    LostPortFlag {
        /// The ports.
        ports: String,
    },
    /// Connections get other ports.
    PortsChanged {
        /// The ports that they get.
        found: String,
        /// Those that they should get.
        expected: String,
    },
    /// Ports are picked in another way: `random`, `fully-random`, `persistent` or none of them.
    ChoiceChanged {
        /// The way; empty for none of them.
        found: String,
        /// That which it should be.
        expected: String,
    },
    /// Connections get another source address.
    AddressChanged {
        /// What it becomes.
        found: String,
        /// What it should become.
        expected: String,
    },
    /// The rule is for other packets, or ends otherwise.
    StatementChanged {
        /// In which respect.
        aspect: Aspect,
        /// What it says of it; empty for nothing.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// The rule says the same in another way or another order.
    ProgramChanged {
        /// The rule.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The comment, which names the policy or the table's owner, is another.
    CommentChanged {
        /// The comment.
        found: Option<String>,
        /// What it should be.
        expected: Option<String>,
    },
    /// The fingerprint is another, and nothing else is.
    FingerprintChanged {
        /// The fingerprint, if there is one.
        found: Option<Fingerprint>,
        /// What it should be.
        expected: Fingerprint,
    },
    /// The set has other elements.
    SetElements {
        /// Those that it lacks.
        missing: Vec<String>,
        /// Those that it has beyond them.
        extra: Vec<String>,
    },
    /// The set has other keys, values, flags or another size.
    SetChanged,
    /// Something differs that ephport has no name for.
    Unnamed,
}

/// In which respect a rule differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aspect {
    /// By which interface.
    Interface,
    /// IPv4 or IPv6.
    Family,
    /// From this host, or from behind it.
    Origin,
    /// From where.
    Sources,
    /// To where.
    Destinations,
    /// Which transport protocol.
    Protocol,
    /// From which source ports.
    SourcePorts,
    /// Whether it is an opening segment.
    TcpFlags,
    /// What conntrack knows.
    Connection,
    /// What is counted.
    Counter,
    /// What becomes of address and port.
    Translation,
    /// Where the packet goes next.
    Verdict,
    /// Anything else.
    Other,
}

impl Aspect {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Family => "address family",
            Self::Origin => "origin",
            Self::Sources => "sources",
            Self::Destinations => "destinations",
            Self::Protocol => "protocol",
            Self::SourcePorts => "source ports",
            Self::TcpFlags => "TCP flags",
            Self::Connection => "connection",
            Self::Counter => "counter",
            Self::Translation => "translation",
            Self::Verdict => "verdict",
            Self::Other => "statements",
        }
    }
}

impl Change {
    /// Its name for programs, as stable as the enum.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Added => "added",
            Self::Dormant => "dormant",
            Self::TableFlags { .. } => "table-flags",
            Self::ChainPriority { .. } => "chain-priority",
            Self::ChainChanged { .. } => "chain-changed",
            Self::Emptied { .. } => "emptied",
            Self::RuleRemoved { .. } => "rule-removed",
            Self::RuleAdded { .. } => "rule-added",
            Self::Moved { .. } => "moved",
            Self::LostPortFlag { .. } => "lost-port-flag",
            Self::PortsChanged { .. } => "ports-changed",
            Self::ChoiceChanged { .. } => "choice-changed",
            Self::AddressChanged { .. } => "address-changed",
            Self::StatementChanged { .. } => "statement-changed",
            Self::ProgramChanged { .. } => "program-changed",
            Self::CommentChanged { .. } => "comment-changed",
            Self::FingerprintChanged { .. } => "fingerprint-changed",
            Self::SetElements { .. } => "set-elements",
            Self::SetChanged => "set-changed",
            Self::Unnamed => "unnamed",
        }
    }
}

/// What follows the place in a sentence.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("is missing"),
            Self::Added => f.write_str("is not the policy's"),
            Self::Dormant => f.write_str("is dormant: the kernel runs none of its rules"),
            Self::TableFlags { found, expected } => {
                write!(f, "has the flags {found:#x}, expected {expected:#x}")
            }
            Self::ChainPriority { found, expected } => {
                write!(f, "has priority {found}, expected {expected}")
            }
            Self::Emptied { rules } => write!(f, "lost all of its {rules} rules"),
            Self::RuleRemoved { rule } => write!(f, "is missing: {rule}"),
            Self::RuleAdded { rule } => write!(f, "is not the policy's: {rule}"),
            Self::Moved { expected } => write!(f, "is out of order, expected as rule {expected}"),
            Self::LostPortFlag { ports } => write!(
                f,
                "lost its port range flag: the kernel ignores its ports {ports}, \
                 though nft lists them"
            ),
            Self::PortsChanged { found, expected } => {
                write!(f, "moves to ports {found}, expected {expected}")
            }
            Self::ChoiceChanged { found, expected } => {
                write!(f, "picks ports {}, expected {}", choice(found), choice(expected))
            }
            Self::AddressChanged { found, expected } => {
                write!(f, "makes the source address {found}, expected {expected}")
            }
            Self::StatementChanged { aspect, found, expected } => {
                write!(f, "{} {}, expected {}", aspect.name(), quoted(found), quoted(expected))
            }
            Self::ChainChanged { found, expected } | Self::ProgramChanged { found, expected } => {
                write!(f, "is `{found}`, expected `{expected}`")
            }
            Self::CommentChanged { found, expected } => {
                let (found, expected) = (found.as_deref(), expected.as_deref());
                write!(f, "has {}, expected {}", comment(found), comment(expected))
            }
            Self::FingerprintChanged { found: Some(found), expected } => {
                write!(f, "has the fingerprint `{found}`, expected `{expected}`")
            }
            Self::FingerprintChanged { found: None, .. } => f.write_str("lost the fingerprint"),
            Self::SetElements { missing, extra } => elements(f, missing, extra),
            Self::SetChanged => f.write_str("has other keys, values, flags or another size"),
            Self::Unnamed => f.write_str("differs in what ephport has no name for"),
        }
    }
}

fn choice(words: &str) -> &str {
    if words.is_empty() { "by default" } else { words }
}

fn comment(text: Option<&str>) -> String {
    text.map_or("no comment".into(), |text| format!("the comment \"{text}\""))
}

/// A statement as a part of a sentence.
fn quoted(words: &str) -> String {
    if words.is_empty() { "none".into() } else { format!("`{words}`") }
}

fn elements(f: &mut fmt::Formatter<'_>, missing: &[String], extra: &[String]) -> fmt::Result {
    let clauses = [("lacks", missing), ("should not have", extra)];
    let clauses = clauses.into_iter().filter(|(_, elements)| !elements.is_empty());
    let clauses: Vec<_> =
        clauses.map(|(verb, elements)| format!("{verb} {}", some_of(elements))).collect();
    f.write_str(&clauses.join(" and "))
}

/// The first few, and how many more.
fn some_of(elements: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = elements.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match elements.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
