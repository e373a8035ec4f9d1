//! The parts of a table that rustables cannot express, and the alternatives.

use std::fmt;

use ephport_core::PolicyName;
use thiserror::Error;

/// The part of a table that rustables cannot express. A table is converted whole or not at all: a rule is
/// never made weaker.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// An expression of a rule.
    #[error(
        "rustables cannot express `{expression}` in chain {chain}{}: {lack}; \
         or apply it with ephport_nft::Client", of(.policy.as_ref())
    )]
    Expression {
        /// The rule's policy; the rules that guard a chain have none.
        policy: Option<PolicyName>,
        /// The rule's chain.
        chain: String,
        /// The expression, as `nft --debug=netlink` prints it.
        expression: String,
        /// The missing part of rustables.
        lack: Lack,
    },
    /// A set or map.
    #[error(
        "rustables cannot express set {set}{}{}: {lack}; or apply it with ephport_nft::Client",
        inside(.chain.as_ref()), of(.policy.as_ref())
    )]
    Set {
        /// The chain whose rule uses it, if one does.
        chain: Option<String>,
        /// The policy of that rule; the rules that enforce several policies have none.
        policy: Option<PolicyName>,
        /// The set's name.
        set: String,
        /// The missing part of rustables.
        lack: Lack,
    },
    /// A part of a table, chain or rule that no policy compiles to.
    #[error("rustables cannot express {object} {name}: its {part} is unsupported")]
    Object {
        /// `table`, `chain` or `rule`.
        object: &'static str,
        /// Its name; of a rule that of its chain.
        name: String,
        /// Its unsupported part.
        part: &'static str,
    },
}

fn inside(chain: Option<&String>) -> String {
    chain.map(|chain| format!(" in chain {chain}")).unwrap_or_default()
}

fn of(policy: Option<&PolicyName>) -> String {
    policy.map(|policy| format!(", of policy {policy}")).unwrap_or_default()
}

/// A missing part of rustables 0.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lack {
    /// The expression, or this use of it.
    Expression,
    /// Registers above 4.
    Register,
    /// The end of a range in `nat`.
    NatRange,
    /// Flags in `nat`.
    NatFlags,
    /// Flags of `lookup`, which invert it.
    LookupFlags,
    /// Addresses in `ct`.
    CtAddress,
    /// Values in sets.
    Map,
    /// Ends of ranges in sets.
    Interval,
    /// The connections that are open, which a set must contain.
    OpenConnections,
    /// Timeouts of connections.
    Timeouts,
    /// An attribute that no set of ours has.
    Attribute,
}

/// The missing part, then the alternative.
impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expression => "it has no such expression: write the policy without it",
            Self::Register => "its registers end at 4: write the policy without it",
            Self::NatRange => {
                "its nat has no end of a range: allow a single port, or let the address be masquerade"
            }
            Self::NatFlags => {
                "its nat has no flags: choose neither random, fully-random nor persistent, \
                 or let the address be masquerade"
            }
            Self::LookupFlags => {
                "its lookup cannot be inverted: except one network of destinations of each prefix length"
            }
            Self::CtAddress => "its ct has no addresses: enforce for all sources",
            Self::Map => "its sets have no values: allow a single range of ports",
            Self::Interval => {
                "its sets have no ranges: name up to four ranges of source ports, or single ports"
            }
            Self::OpenConnections => {
                "it cannot find the connections that are open: set open-connections to drop"
            }
            Self::Timeouts => "it has no ct timeout objects: set timeouts to none",
            Self::Attribute => "its sets lack an attribute of this one: make it without",
        })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn messages_name_part_and_alternative() {
        let policy = || Some(PolicyName::default());
        let expression = |lack| Unsupported::Expression {
            policy: policy(),
            chain: "postrouting".into(),
            expression: "[ x ]".into(),
            lack,
        };
        let set = |lack, policy| Unsupported::Set {
            chain: Some("enforce".into()),
            policy,
            set: "__set0".into(),
            lack,
        };
        let errors = [
            expression(Lack::Expression),
            expression(Lack::Register),
            expression(Lack::NatRange),
            expression(Lack::NatFlags),
            expression(Lack::LookupFlags),
            expression(Lack::CtAddress),
            expression(Lack::Timeouts),
            set(Lack::Map, policy()),
            set(Lack::Interval, policy()),
            set(Lack::OpenConnections, policy()),
            set(Lack::Attribute, None),
            Unsupported::Object { object: "chain", name: "c".into(), part: "hook" },
        ];
        let messages = errors.map(|error| error.to_string()).join("\n");
        expect![[r#"
            rustables cannot express `[ x ]` in chain postrouting, of policy default: it has no such expression: write the policy without it; or apply it with ephport_nft::Client
            rustables cannot express `[ x ]` in chain postrouting, of policy default: its registers end at 4: write the policy without it; or apply it with ephport_nft::Client
            rustables cannot express `[ x ]` in chain postrouting, of policy default: its nat has no end of a range: allow a single port, or let the address be masquerade; or apply it with ephport_nft::Client
            rustables cannot express `[ x ]` in chain postrouting, of policy default: its nat has no flags: choose neither random, fully-random nor persistent, or let the address be masquerade; or apply it with ephport_nft::Client
            rustables cannot express `[ x ]` in chain postrouting, of policy default: its lookup cannot be inverted: except one network of destinations of each prefix length; or apply it with ephport_nft::Client
            rustables cannot express `[ x ]` in chain postrouting, of policy default: its ct has no addresses: enforce for all sources; or apply it with ephport_nft::Client
            rustables cannot express `[ x ]` in chain postrouting, of policy default: it has no ct timeout objects: set timeouts to none; or apply it with ephport_nft::Client
            rustables cannot express set __set0 in chain enforce, of policy default: its sets have no values: allow a single range of ports; or apply it with ephport_nft::Client
            rustables cannot express set __set0 in chain enforce, of policy default: its sets have no ranges: name up to four ranges of source ports, or single ports; or apply it with ephport_nft::Client
            rustables cannot express set __set0 in chain enforce, of policy default: it cannot find the connections that are open: set open-connections to drop; or apply it with ephport_nft::Client
            rustables cannot express set __set0 in chain enforce: its sets lack an attribute of this one: make it without; or apply it with ephport_nft::Client
            rustables cannot express chain c: its hook is unsupported"#]].assert_eq(&messages);
    }
}
