//! Drift: the differences between the installed table and the table of a policy, in the policy's terms.
//!
//! The table contains a checksum of what was applied, not a copy: the checksum shows *that* the table
//! drifted, only the policy shows *how*. The user data of rules could not: the record of a deleted rule is
//! deleted with it, a record of all others has no room (`NFT_USERDATA_MAXLEN` is 256 bytes), and nft drops unknown
//! user data when a listing is loaded. Without a policy, [`evident`] finds what no policy ever makes.
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PolicySpec, Target};
//! use ephport_nft::Plan;
//! use ephport_nft::plan::drift;
//!
//! let host = HostFacts::with_uplinks(["eth0".parse()?]);
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let desired = Plan::new(&[policy], &host)?.table;
//! let mut installed = desired.clone();
//! installed.chains[0].hook.as_mut().unwrap().priority = 100;
//! assert_eq!(
//!     drift::drift(&installed, &desired)[0].to_string(),
//!     "chain postrouting: priority 100, expected 90"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod rules;

use std::collections::HashSet;
use std::fmt;

use ephport_core::PolicyName;

use crate::nftables::{Chain, Comment, CtTimeout, Hook, Rule, Table, UnknownObject};
use crate::syntax::{Statement, chain_to_nft, decode, element_texts};
use crate::table::layout::{ENFORCE, ENFORCE_PRIORITY, POSTROUTING, PRIORITY, TABLE, policy_of};
use crate::table::{Fingerprint, Normalized, NormalizedSet, TableState};
use crate::uapi::{NF_ACCEPT, NFT_TABLE_F_DORMANT};

/// One difference between the installed table and the table of a policy. Rules and statements are as nft
/// prints them, or as bytecode where nft has no syntax for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Drift {
    /// The object.
    pub location: Location,
    /// The attribute of the object that is different.
    pub attribute: Attribute,
    /// The value in the kernel; `None` if there is none.
    pub found: Option<String>,
    /// The value that the policy has; `None` if there is none.
    pub expected: Option<String>,
}

macro_rules! attributes {
    ($($variant:ident = $name:literal,)*) => {
        /// The attributes in which the objects of two policies can differ.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum Attribute {
            $(
                #[doc = concat!("The ", $name, ".")]
                #[cfg_attr(feature = "serde", serde(rename = $name))]
                $variant,
            )*
        }

        impl Attribute {
            /// The name, in sentences and for programs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $name, )*
                }
            }
        }
    };
}

attributes! {
    Object = "object",
    Position = "position",
    Flags = "flags",
    Priority = "priority",
    Declaration = "declaration",
    Rules = "rules",
    Specification = "specification",
    Elements = "elements",
    Comment = "comment",
    Fingerprint = "fingerprint",
    Interface = "interface",
    Family = "address family",
    Origin = "origin",
    Sources = "sources",
    Destinations = "destinations",
    Protocol = "protocol",
    SourcePorts = "source ports",
    TcpFlags = "TCP flags",
    Connection = "connection",
    Counter = "counter",
    Translation = "translation",
    Ports = "ports",
    PortRangeFlag = "port range flag",
    Address = "address",
    PortSelection = "port selection",
    Timeouts = "timeouts",
    Verdict = "verdict",
    Statements = "statements",
    Encoding = "encoding",
    Unknown = "unknown attributes",
}

/// An object of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Location {
    /// The table itself.
    Table,
    /// A chain.
    Chain {
        /// The name of the chain.
        chain: String,
    },
    /// A named set or map.
    Set {
        /// The name of the set.
        set: String,
    },
    /// Timeouts of connections.
    Timeout {
        /// The name of the object.
        timeout: String,
    },
    /// An object that no policy compiles to.
    Object(UnknownObject),
    /// A rule.
    Rule {
        /// The name of its chain.
        chain: String,
        /// Its number in the chain, from 1: that in the kernel, or for a missing rule that of the policy.
        number: usize,
        /// The policy that the rule belongs to; `None` for a rule that all policies share.
        policy: Option<PolicyName>,
    },
}

impl Location {
    fn chain(chain: &str) -> Self {
        Self::Chain { chain: chain.into() }
    }

    fn set(set: &str) -> Self {
        Self::Set { set: set.into() }
    }

    /// The rule at an index of its chain, from 0.
    fn rule(rule: &Rule, index: usize) -> Self {
        Self::Rule { chain: rule.chain.clone(), number: index + 1, policy: policy_of(rule) }
    }

    fn differs(self, (attribute, found, expected): Difference) -> Drift {
        Drift { location: self, attribute, found, expected }
    }
}

/// An attribute, its value in the kernel and its value in the policy.
type Difference = (Attribute, Option<String>, Option<String>);

/// An object that is missing, or belongs to no policy; its text if it is a rule.
fn missing(text: String) -> Difference {
    (Attribute::Object, None, Some(text))
}

fn unexpected(text: String) -> Difference {
    (Attribute::Object, Some(text), None)
}

/// A difference in what ephport does not know.
fn unknown() -> Difference {
    (Attribute::Unknown, Some("changed".into()), Some("as applied".into()))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => f.write_str("the table"),
            Self::Chain { chain } => write!(f, "chain {chain}"),
            Self::Set { set } => write!(f, "set {set}"),
            Self::Timeout { timeout } => write!(f, "ct timeout {timeout}"),
            Self::Object(object) => object.fmt(f),
            Self::Rule { chain, number, policy: Some(policy) } => {
                write!(f, "policy {policy}, rule {number} of {chain}")
            }
            Self::Rule { chain, number, policy: None } => write!(f, "rule {number} of {chain}"),
        }
    }
}

/// One sentence.
impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, attribute, found, expected } = self;
        let text = |text: &str| if text.is_empty() { String::new() } else { format!(": {text}") };
        match (attribute, found.as_deref(), expected.as_deref()) {
            (Attribute::Object, None, Some(rule)) => {
                write!(f, "{location} is missing{}", text(rule))
            }
            (Attribute::Object, Some(rule), None) => {
                write!(f, "{location} belongs to no policy{}", text(rule))
            }
            (attribute, found, expected) => {
                let (found, expected) = (found.unwrap_or("none"), expected.unwrap_or("none"));
                write!(f, "{location}: {} {found}, expected {expected}", attribute.name())
            }
        }
    }
}

/// All differences: empty if, and only if, [normalized view](TableState::normalized) and fingerprint are
/// equal. A missing or unexpected chain includes its rules.
#[must_use]
pub fn drift(installed: &TableState, desired: &TableState) -> Vec<Drift> {
    let (found, expected) = (installed.normalized(), desired.normalized());
    let mut drifts = table(found.table, expected.table);
    for after in &desired.chains {
        match found.chain(&after.name) {
            None => drifts.push(Location::chain(&after.name).differs(missing(String::new()))),
            Some(before) => {
                drifts.extend(chain(before, after));
                drifts.extend(rules::rules(&found, &expected, &after.name));
            }
        }
    }
    let added = installed.chains.iter().filter(|chain| expected.chain(&chain.name).is_none());
    drifts.extend(added.map(|of| Location::chain(&of.name).differs(unexpected(String::new()))));
    drifts.extend(sets(&found, &expected));
    drifts.extend(timeouts(&found, &expected));
    let only_in = |one: &TableState, other: &TableState, difference: &Difference| {
        let only = one.unknown.iter().filter(|object| !other.unknown.contains(object)).cloned();
        only.map(|of| Location::Object(of).differs(difference.clone())).collect::<Vec<_>>()
    };
    drifts.extend(only_in(desired, installed, &missing(String::new())));
    drifts.extend(only_in(installed, desired, &unexpected(String::new())));
    if drifts.is_empty() {
        drifts.extend(fingerprint(installed, desired));
    }
    drifts
}

/// The absence of the whole table.
pub(crate) fn absent() -> Drift {
    Location::Table.differs(missing(String::new()))
}

/// The differences that the table shows by itself: what no policy makes.
#[must_use]
pub fn evident(installed: &TableState) -> Vec<Drift> {
    let view = installed.normalized();
    let flags = installed.table.flags.map(|flags| flags & !NFT_TABLE_F_DORMANT);
    let expected = Table { flags: flags.filter(|flags| *flags != 0), ..installed.table.clone() };
    let mut drifts = table(&installed.table, &expected);
    for found in &installed.chains {
        let base = [(POSTROUTING, "nat", PRIORITY), (ENFORCE, "filter", ENFORCE_PRIORITY)];
        let base = base.into_iter().find(|(name, ..)| *name == found.name);
        drifts.extend(base.into_iter().flat_map(|(_, kind, priority)| {
            // The priority of another table's NAT chain is its owner's choice.
            let is_fixed = found.name != POSTROUTING || installed.table.name == TABLE;
            let hook = found.hook.clone();
            let hook = hook.map(|hook| if is_fixed { Hook { priority, ..hook } } else { hook });
            let (chain_type, policy) = (Some(kind.into()), Some(NF_ACCEPT));
            chain(found, &Chain { hook, policy, chain_type, ..found.clone() })
        }));
        for (index, rule) in view.rules_of(&found.name).iter().enumerate() {
            let lost = decode(rule, &view).into_iter().filter_map(|decoded| {
                let Statement::Nat(nat) = decoded.statement else { return None };
                rules::lost_port_flag(&nat)
            });
            drifts.extend(lost.map(|lost| Location::rule(rule, index).differs(lost)));
        }
    }
    let unknown = installed.unknown.iter().cloned();
    drifts.extend(unknown.map(|of| Location::Object(of).differs(unexpected(String::new()))));
    drifts
}

/// A fingerprint follows from all else: it is a difference only where there is no other.
fn fingerprint(installed: &TableState, desired: &TableState) -> Option<Drift> {
    let (found, expected) = (installed.fingerprint(), desired.fingerprint());
    let checksum = |of: &Option<Fingerprint>| of.as_ref().map(|of| (of.checksum, of.facts));
    let text = |of: Option<Fingerprint>| of.map(|of| of.to_string());
    (checksum(&found) != checksum(&expected))
        .then(|| Location::Table.differs((Attribute::Fingerprint, text(found), text(expected))))
}

fn comment(comment: Option<&Comment>) -> Option<String> {
    comment.map(|comment| format!("\"{}\"", comment.as_str()))
}

fn table(found: &Table, expected: &Table) -> Vec<Drift> {
    let (found, expected) = (found.normalized(), expected.normalized());
    let text = |flags: u32| match flags {
        0 => None,
        NFT_TABLE_F_DORMANT => Some("dormant (the kernel runs none of its rules)".into()),
        flags => Some(format!("{flags:#x}")),
    };
    let flags = (found.flags.unwrap_or(0), expected.flags.unwrap_or(0));
    let flags = (flags.0 != flags.1).then(|| (Attribute::Flags, text(flags.0), text(flags.1)));
    let comments = (found.userdata != expected.userdata).then(|| {
        let text = |table: &Table| comment(table.comment().as_ref());
        (Attribute::Comment, text(&found), text(&expected))
    });
    let same = Table { flags: found.flags, userdata: found.userdata.clone(), ..expected };
    let unknown = (found != same).then(unknown);
    let differences = [flags, comments, unknown].into_iter().flatten();
    differences.map(|difference| Location::Table.differs(difference)).collect()
}

fn chain(found: &Chain, expected: &Chain) -> Vec<Drift> {
    let (mut found, expected) = (found.normalized(), expected.normalized());
    let mut differences = Vec::new();
    if let (Some(is), Some(was)) = (&mut found.hook, &expected.hook)
        && is.priority != was.priority
    {
        let (text, wanted) = (is.priority.to_string(), was.priority.to_string());
        differences.push((Attribute::Priority, Some(text), Some(wanted)));
        is.priority = was.priority;
    }
    if found != expected {
        let text = |chain: &Chain| {
            Some(chain_to_nft(chain))
                .filter(|text| !text.is_empty())
                .map(|text| format!("`{text}`"))
        };
        let (is, was) = (text(&found), text(&expected));
        differences.push(if is == was { unknown() } else { (Attribute::Declaration, is, was) });
    }
    differences.into_iter().map(|of| Location::chain(&expected.name).differs(of)).collect()
}

fn sets(found: &Normalized<'_>, expected: &Normalized<'_>) -> Vec<Drift> {
    let mut drifts = Vec::new();
    for set in expected.named_sets() {
        let difference = match found.set(&set.spec.name) {
            None => Some(missing(String::new())),
            Some(before) => self::set(before, set),
        };
        drifts.extend(difference.map(|of| Location::set(&set.spec.name).differs(of)));
    }
    let added = found.named_sets().into_iter().filter(|set| expected.set(&set.spec.name).is_none());
    drifts
        .extend(added.map(|set| Location::set(&set.spec.name).differs(unexpected(String::new()))));
    drifts
}

fn timeouts(found: &Normalized<'_>, expected: &Normalized<'_>) -> Vec<Drift> {
    let at = |object: &CtTimeout| Location::Timeout { timeout: object.name.clone() };
    let mut drifts = Vec::new();
    for object in &expected.timeouts {
        let difference = match found.timeout(&object.name) {
            None => missing(String::new()),
            Some(old) if old == object => continue,
            Some(old) => {
                let (is, was) = (old.timeouts().to_string(), object.timeouts().to_string());
                if is == was { unknown() } else { (Attribute::Timeouts, Some(is), Some(was)) }
            }
        };
        drifts.push(at(object).differs(difference));
    }
    let added = found.timeouts.iter().filter(|object| expected.timeout(&object.name).is_none());
    drifts.extend(added.map(|object| at(object).differs(unexpected(String::new()))));
    drifts
}

fn set(found: &NormalizedSet<'_>, expected: &NormalizedSet<'_>) -> Option<Difference> {
    if found.spec.normalized() != expected.spec.normalized() {
        let (is, was) = (found.spec.summary(), expected.spec.summary());
        return Some((Attribute::Specification, Some(is), Some(was)));
    }
    if found == expected {
        return None;
    }
    let (is, was) = (element_texts(found), element_texts(expected));
    let lacking = |all: &[String], others: &[String]| {
        let others: HashSet<_> = others.iter().collect();
        let lacking: Vec<_> = all.iter().filter(|text| !others.contains(text)).collect();
        first_few(&lacking)
    };
    let (unexpected, missing) = (lacking(&is, &was), lacking(&was, &is));
    let is_named = unexpected.is_some() || missing.is_some();
    Some(if is_named { (Attribute::Elements, unexpected, missing) } else { unknown() })
}

/// The first few elements, and the count of the others.
fn first_few(elements: &[&String]) -> Option<String> {
    const SHOWN: usize = 3;
    let shown: Vec<_> = elements.iter().take(SHOWN).map(|text| text.as_str()).collect();
    let more = match elements.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!shown.is_empty()).then(|| shown.join(", ") + &more)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn sentences_start_with_the_location() {
        let drift = |location, attribute, found: Option<&str>, expected: Option<&str>| {
            let [found, expected] = [found, expected].map(|text| text.map(Into::into));
            Drift { location, attribute, found, expected }.to_string()
        };
        let chain = || Location::Chain { chain: "enforce".into() };
        let set = || Location::Set { set: "p/blocks4".into() };
        let rule = |policy: Option<&str>| Location::Rule {
            chain: "postrouting".into(),
            number: 3,
            policy: policy.map(|name| name.parse().unwrap()),
        };
        let lines = [
            drift(Location::Table, Attribute::Object, None, Some("")),
            drift(chain(), Attribute::Object, Some(""), None),
            drift(chain(), Attribute::Rules, None, Some("6")),
            drift(rule(Some("p")), Attribute::Object, None, Some("counter")),
            drift(rule(None), Attribute::Object, Some("counter"), None),
            drift(rule(Some("p")), Attribute::Position, Some("3"), Some("4")),
            drift(set(), Attribute::Elements, Some("1, 2, 3 and 2 more"), None),
        ];
        expect![[r#"
            the table is missing
            chain enforce belongs to no policy
            chain enforce: rules none, expected 6
            policy p, rule 3 of postrouting is missing: counter
            rule 3 of postrouting belongs to no policy: counter
            policy p, rule 3 of postrouting: position 3, expected 4
            set p/blocks4: elements 1, 2, 3 and 2 more, expected none
        "#]]
        .assert_eq(&(lines.join("\n") + "\n"));
    }
}
