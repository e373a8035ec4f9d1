//! The module that the kernel lacks when it rejects an operation.
//!
//! A kernel loads modules by itself, unless it cannot: in a container's image without
//! `/lib/modules`, after an upgrade of the kernel that is not booted yet, with
//! `kernel.modules_disabled`. Then it answers only ENOENT and an offset in the message
//! (net/netfilter/nf_tables_api.c).

use std::fmt;

use super::location::RequestLocation;
use crate::plan::operation::Operation;

/// A module of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// The first Linux that has it for tables of family inet, if it had it for others before: NAT in
    /// inet tables came with 5.2 (wiki.nftables.org, "List of updates since Linux kernel 3.13").
    pub since: Option<&'static str>,
    /// The option of the kernel's configuration that the module must be built with.
    pub option: Option<&'static str>,
}

impl Module {
    const fn new(name: &'static str) -> Self {
        Self { name, since: None, option: None }
    }

    const fn since(self, version: &'static str) -> Self {
        Self { since: Some(version), ..self }
    }

    /// The module that is missing when the kernel answers ENOENT to this operation, at this location.
    pub(super) fn missing(
        operation: &Operation,
        location: Option<&RequestLocation>,
    ) -> Option<Self> {
        match operation {
            // Linux 5.10 answers ENOENT without an offset.
            Operation::AddChain(chain) if chain.chain_type.as_deref() == Some("nat") => {
                let is_type =
                    location.is_none_or(|location| location.attribute == "NFTA_CHAIN_TYPE");
                is_type.then_some(Self::new("nft_chain_nat").since("5.2"))
            }
            Operation::AddTimeout(_) => {
                let option = Some("CONFIG_NF_CONNTRACK_TIMEOUT");
                Some(Self { option, ..Self::new("nft_ct") })
            }
            Operation::AppendRule(_) | Operation::InsertRule(_) => {
                Self::of(location?.expression()?)
            }
            _ => None,
        }
    }

    /// The module of an expression, if it has its own.
    fn of(expression: &str) -> Option<Self> {
        Some(match expression {
            "counter" => Self::new("nft_counter"), // part of nf_tables since 5.17
            "ct" => Self::new("nft_ct"),
            "fib" => Self::new("nft_fib_inet"),
            "hash" => Self::new("nft_hash"),
            "masq" => Self::new("nft_masq").since("5.2"),
            "nat" => Self::new("nft_nat").since("5.2"),
            "numgen" => Self::new("nft_numgen"),
            "objref" => Self::new("nft_objref"), // part of nf_tables since 6.2
            _ => return None,
        })
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, since, option } = self;
        write!(f, "it lacks the module {name}")?;
        if let Some(option) = option {
            write!(f, ", or {option}: without timeouts the policy needs none")?;
        }
        match since {
            Some(version) => write!(f, ", which Linux {version} or later has"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ephport_core::{Address, HostFacts, Policy, PortRange};
    use expect_test::expect;

    use crate::client::{Batch, Error};
    use crate::compile;
    use crate::netlink::{Ack, Errno};
    use crate::plan::operation::Operation;

    /// The error when the kernel rejects the operation with this number, counted from 1.
    fn error(number: u32, errno: Errno, offset: Option<u32>) -> Error {
        let range: PortRange = "49152-61000".parse().unwrap();
        let policy = Policy::to(range).out_any().address(Address::Masquerade).build().unwrap();
        let policy = policy.resolve(&HostFacts::default()).unwrap();
        let batch = Batch::replace(&compile(&[policy]).unwrap());
        let refusal = Ack { seq: number, errno: Some(errno), message: None, offset };
        crate::client::verdict::verdict(&batch, 0, &[refusal]).unwrap_err()
    }

    /// As Linux 5.10.262 and 7.3.4 rejected it, module after module (tests/kernels).
    #[test]
    fn the_offset_identifies_the_missing_module() {
        for (number, offset, module) in [
            (4, None, "nft_chain_nat"),
            (4, Some(76), "nft_chain_nat"),
            (5, Some(52), "nft_fib_inet"),
            (9, Some(524), "nft_counter"),
            (9, Some(656), "nft_masq"),
        ] {
            let error = error(number, Errno::ENOENT, offset);
            assert!(
                matches!(error, Error::NoModule { module: found, .. } if found.name == module),
                "{number}, {offset:?}: {error}"
            );
        }
        let messages = [(5, 52), (9, 524), (9, 656)]
            .map(|(number, offset)| error(number, Errno::ENOENT, Some(offset)).to_string());
        expect![[r#"
            the kernel refused to add rule 1 to chain postrouting: it lacks the module nft_fib_inet
            the kernel refused to add rule 1 of policy default to chain postrouting: it lacks the module nft_counter
            the kernel refused to add rule 1 of policy default to chain postrouting: it lacks the module nft_masq, which Linux 5.2 or later has"#]].assert_eq(&messages.join("\n"));
    }

    #[test]
    fn timeouts_need_a_part_of_the_kernel() {
        let range: PortRange = "49152-61000".parse().unwrap();
        let policy = Policy::to(range).out_any().with("timeouts", ["tcp-close=3"]).build().unwrap();
        let policy = policy.resolve(&HostFacts::default()).unwrap();
        let batch = Batch::replace(&compile(&[policy]).unwrap());
        let is_timeout = |of: &Operation| matches!(of, Operation::AddTimeout(_));
        let at = batch.operations().iter().position(is_timeout).unwrap();
        let seq = u32::try_from(at).unwrap() + 1;
        let refusal = Ack { seq, errno: Some(Errno::ENOENT), message: None, offset: None };
        let error = crate::client::verdict::verdict(&batch, 0, &[refusal]).unwrap_err();
        expect![[r#"
            the kernel refused to add ct timeout default/tcp.close-3: it lacks the module nft_ct, or CONFIG_NF_CONNTRACK_TIMEOUT: without timeouts the policy needs none"#]].assert_eq(&error.to_string());
    }

    #[test]
    fn other_failures_are_not_missing_modules() {
        // The table, a rule's chain, an instruction of nf_tables itself, an offset after the rule, no
        // offset; and another errno.
        for (number, errno, offset) in [
            (3, Errno::ENOENT, Some(20)),
            (9, Errno::ENOENT, Some(32)),
            (9, Errno::ENOENT, Some(56)),
            (9, Errno::ENOENT, Some(100_000)),
            (9, Errno::ENOENT, None),
            (9, Errno::EINVAL, Some(656)),
        ] {
            let error = error(number, errno, offset);
            assert!(matches!(error, Error::Rejected(_)), "{number}, {offset:?}: {error}");
        }
    }
}
