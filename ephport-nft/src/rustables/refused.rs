//! What rustables cannot carry, and what to do instead.

use std::fmt;

use ephport_core::PolicyName;
use thiserror::Error;

/// Why a ruleset has no form in rustables. It is all or nothing: a rule is never made weaker.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// An expression of a rule.
    #[error(
        "rustables cannot carry `{expression}` in chain {chain}{}: {lack}; \
         or apply it with ephport_nft::Client", of(.policy.as_ref())
    )]
    Expression {
        /// The rule's policy; the rules that guard a chain have none.
        policy: Option<PolicyName>,
        /// The rule's chain.
        chain: String,
        /// The expression, as `nft --debug=netlink` prints it.
        expression: String,
        /// What rustables lacks for it.
        lack: Lack,
    },
    /// A set or map.
    #[error(
        "rustables cannot carry set {set}{}: {lack}; or apply it with ephport_nft::Client",
        of(.policy.as_ref())
    )]
    SetSpec {
        /// The policy whose rule looks it up.
        policy: Option<PolicyName>,
        /// The set's name.
        set: String,
        /// What rustables lacks for it.
        lack: Lack,
    },
    /// Something about a table, chain or rule that no program of ours has.
    #[error("rustables cannot carry {object} {name}: it has no words for its {part}")]
    Object {
        /// `table`, `chain` or `rule`.
        object: &'static str,
        /// Its name; of a rule that of its chain.
        name: String,
        /// What about it.
        part: &'static str,
    },
}

fn of(policy: Option<&PolicyName>) -> String {
    policy.map(|policy| format!(", of policy {policy}")).unwrap_or_default()
}

/// What rustables 0.9 lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lack {
    /// The expression, or this use of it.
    Expression,
    /// Registers but 0 to 4.
    Register,
    /// The end of a range in `nat`.
    NatRange,
    /// Flags in `nat`.
    NatFlags,
    /// Flags in `lookup`, which turn it around.
    LookupFlags,
    /// Addresses in `ct`.
    CtAddress,
    /// Values in sets.
    Map,
    /// Ends of ranges in sets.
    Interval,
    /// An attribute that no set of ours has.
    Attribute,
}

/// What is lacking, then what to ask for instead.
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
                "its lookup cannot be turned around: except one network of destinations"
            }
            Self::CtAddress => "its ct knows no addresses: enforce for all sources",
            Self::Map => "its sets have no values: allow a single range of ports",
            Self::Interval => {
                "its sets have no ranges: name one range of source ports and one network, \
                 or single ports and addresses"
            }
            Self::Attribute => "its sets lack an attribute of this one: make it without",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_is_lacking_and_what_to_do() {
        let policy = || Some(PolicyName::default());
        let expression = |lack| Refused::Expression {
            policy: policy(),
            chain: "postrouting".into(),
            expression: "[ x ]".into(),
            lack,
        };
        let set = |lack| Refused::SetSpec { policy: policy(), set: "__set0".into(), lack };
        let cases = [
            (
                expression(Lack::Expression),
                "`[ x ]` in chain postrouting, of policy default: it has no such expression: \
                 write the policy without it",
            ),
            (
                expression(Lack::Register),
                "`[ x ]` in chain postrouting, of policy default: its registers end at 4: \
                 write the policy without it",
            ),
            (
                expression(Lack::NatRange),
                "`[ x ]` in chain postrouting, of policy default: its nat has no end of a range: \
                 allow a single port, or let the address be masquerade",
            ),
            (
                expression(Lack::NatFlags),
                "`[ x ]` in chain postrouting, of policy default: its nat has no flags: choose \
                 neither random, fully-random nor persistent, or let the address be masquerade",
            ),
            (
                expression(Lack::LookupFlags),
                "`[ x ]` in chain postrouting, of policy default: its lookup cannot be turned \
                 around: except one network of destinations",
            ),
            (
                expression(Lack::CtAddress),
                "`[ x ]` in chain postrouting, of policy default: its ct knows no addresses: \
                 enforce for all sources",
            ),
            (
                set(Lack::Map),
                "set __set0, of policy default: its sets have no values: allow a single range of \
                 ports",
            ),
            (
                set(Lack::Interval),
                "set __set0, of policy default: its sets have no ranges: name one range of source \
                 ports and one network, or single ports and addresses",
            ),
            (
                Refused::SetSpec { policy: None, set: "s".into(), lack: Lack::Attribute },
                "set s: its sets lack an attribute of this one: make it without",
            ),
        ];
        for (refused, message) in cases {
            let message =
                format!("rustables cannot carry {message}; or apply it with ephport_nft::Client");
            assert_eq!(refused.to_string(), message);
        }
        let object = Refused::Object { object: "chain", name: "c".into(), part: "hook" };
        assert_eq!(
            object.to_string(),
            "rustables cannot carry chain c: it has no words for its hook"
        );
    }
}
