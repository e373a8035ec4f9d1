//! Which module the kernel lacks when it refuses an operation.
//!
//! A kernel loads modules by itself, unless it cannot: in a container's image without
//! `/lib/modules`, after an upgrade of the kernel that is not booted yet, under
//! `kernel.modules_disabled`. Then all it says is ENOENT and where in the message
//! (net/netfilter/nf_tables_api.c).

use super::transaction::Operation;
use crate::expr::Expr;
use crate::object::Rule;
use crate::wire::{Header, Writer};

impl Operation {
    /// The module that is missing when the kernel answers ENOENT at this byte of the message.
    pub(super) fn missing_module(&self, offset: Option<u32>) -> Option<&'static str> {
        match self {
            Self::AddChain(chain) => chain.kind.is_some().then_some("nft_chain_nat"),
            Self::AppendRule(rule) | Self::InsertRule(rule) => {
                module(expr_at(rule, usize::try_from(offset?).ok()?)?)
            }
            _ => None,
        }
    }
}

/// The expression of the rule's message that holds this byte.
fn expr_at(rule: &Rule, offset: usize) -> Option<&Expr> {
    let end = |count| {
        let exprs = rule.exprs.iter().take(count).cloned().collect();
        let mut w = Writer::new();
        w.message(Header { kind: 0, flags: 0, seq: 0 }, |w| {
            Rule { exprs, userdata: None, other: Vec::new(), ..rule.clone() }.write(w);
        });
        w.len()
    };
    if offset < end(0) {
        return None;
    }
    rule.exprs.iter().zip(1..).find(|(_, count)| offset < end(*count)).map(|(expr, _)| expr)
}

/// The module of its own that an expression has.
fn module(expr: &Expr) -> Option<&'static str> {
    match expr {
        Expr::Counter(_) => Some("nft_counter"), // part of nf_tables since 5.17
        Expr::Ct(_) => Some("nft_ct"),
        Expr::Fib(_) => Some("nft_fib_inet"),
        Expr::Hash(_) => Some("nft_hash"),
        Expr::Masq(_) => Some("nft_masq"),
        Expr::Nat(_) => Some("nft_nat"),
        Expr::Numgen(_) => Some("nft_numgen"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ephport_core::{Egress, HostFacts, Policy, PolicySpec, Scope, Target};
    use nix::errno::Errno;

    use crate::client::{Batch, Error};
    use crate::compile;
    use crate::wire::Ack;

    /// What the kernel's refusal of the operation of this number, counted from 1, means.
    fn error(number: u32, errno: Errno, offset: Option<u32>) -> Error {
        let scope = Scope { egress: Egress::Any, ..Scope::default() };
        let spec = PolicySpec::to(Target::Ports("49152-61000".parse().unwrap()));
        let policy = Policy::new(PolicySpec { scope, ..spec }).unwrap();
        let policy = policy.resolve(&HostFacts::default()).unwrap();
        let batch = Batch::replace(&compile(&[policy]).unwrap());
        let refusal = Ack { seq: number, errno: Some(errno), message: None, offset };
        batch.verdict(0, &[refusal]).unwrap_err()
    }

    /// As Linux 5.10.262 and 7.3.4 refused it, module after module (tests/kernels).
    #[test]
    fn the_byte_that_the_kernel_points_at_tells_the_module() {
        for (number, offset, module) in [
            (4, None, "nft_chain_nat"),
            (4, Some(76), "nft_chain_nat"),
            (5, Some(52), "nft_fib_inet"),
            (7, Some(524), "nft_counter"),
            (7, Some(656), "nft_masq"),
        ] {
            let error = error(number, Errno::ENOENT, offset);
            assert!(
                matches!(error, Error::NoModule { module: found, .. } if found == module),
                "{number}, {offset:?}: {error}"
            );
        }
        for (number, offset, message) in [
            (
                5,
                52,
                "the kernel refused to add a rule of policy guard to chain postrouting: \
                 it lacks the module nft_fib_inet; load it with `modprobe nft_fib_inet`",
            ),
            (
                7,
                656,
                "the kernel refused to add a rule of policy default to chain postrouting: \
                 it lacks the module nft_masq; load it with `modprobe nft_masq`",
            ),
        ] {
            assert_eq!(error(number, Errno::ENOENT, Some(offset)).to_string(), message);
        }
    }

    #[test]
    fn what_is_no_module_is_not_taken_for_one() {
        // The table, a rule's chain, an instruction of nf_tables itself, a byte behind the rule, no
        // byte; and another errno.
        for (number, errno, offset) in [
            (3, Errno::ENOENT, Some(20)),
            (7, Errno::ENOENT, Some(32)),
            (7, Errno::ENOENT, Some(56)),
            (7, Errno::ENOENT, Some(100_000)),
            (7, Errno::ENOENT, None),
            (7, Errno::EINVAL, Some(656)),
        ] {
            let error = error(number, errno, offset);
            assert!(matches!(error, Error::Refused { .. }), "{number}, {offset:?}: {error}");
        }
    }
}
