//! The guarantee: what would still leave by another port is dropped and counted.
//!
//! The chain sees packets after translation. Like the policies themselves, the first whose scope
//! holds a connection decides on it.

use ephport_core::ResolvedPolicy;

use super::Program;
use super::scope::{Packets, Source, protocol};
use crate::nftables::expr::{Bitwise, Cmp, CmpOp, Counter, Ct, Expr, Immediate, Verdict};
use crate::table::layout::{ENFORCE, ENFORCE_PRIORITY};
use crate::uapi::{IP_CT_DIR_REPLY, NF_CT_STATE_INVALID_BIT};

impl Program {
    /// Adds the enforcing chain, if a policy asks for it.
    pub(super) fn enforce(&mut self, policies: &[ResolvedPolicy]) {
        let Some(last) = policies.iter().rposition(|policy| policy.enforce) else { return };
        self.base_chain(ENFORCE, "filter", ENFORCE_PRIORITY);
        // What comes back in connections from elsewhere has the port of a server of ours.
        self.rule(
            ENFORCE,
            vec![
                Ct::DIRECTION.into(),
                Cmp::new(CmpOp::Eq, &[IP_CT_DIR_REPLY]).into(),
                Immediate::verdict(Verdict::Return).into(),
            ],
        );
        for policy in &policies[..=last] {
            for packets in Packets::of(policy) {
                self.enforce_on(policy, &packets);
            }
        }
    }

    fn enforce_on(&mut self, policy: &ResolvedPolicy, packets: &Packets<'_>) {
        for known in policy.protocols.iter() {
            if policy.enforce {
                let Some(mut exprs) = self.scope(policy, packets, Source::Connection) else {
                    return;
                };
                exprs.extend(protocol(known));
                exprs.extend(self.source_ports(&policy.permitted_source_ports));
                exprs.extend(ending(Verdict::Return));
                // NAT passes over what conntrack cannot place, and so conntrack does not know its
                // source either.
                let mut unplaced = packets.exit_and_family();
                unplaced.extend(protocol(known));
                unplaced.extend(invalid());
                unplaced.extend(ending(Verdict::Drop));
                self.rule_of(policy, ENFORCE, unplaced);
                self.rule_of(policy, ENFORCE, exprs);
            }
            let Some(mut exprs) = self.scope(policy, packets, Source::Connection) else { return };
            exprs.extend(protocol(known));
            exprs.extend(ending(if policy.enforce { Verdict::Drop } else { Verdict::Return }));
            self.rule_of(policy, ENFORCE, exprs);
        }
    }
}

fn invalid() -> [Expr; 3] {
    let bit = NF_CT_STATE_INVALID_BIT.to_ne_bytes();
    [Ct::STATE.into(), Bitwise::mask(&bit).into(), Cmp::new(CmpOp::Neq, &[0; 4]).into()]
}

fn ending(verdict: Verdict) -> [Expr; 2] {
    [Counter::default().into(), Immediate::verdict(verdict).into()]
}
