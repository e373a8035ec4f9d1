//! What happens to one connection: by the meaning of the policies, and by their program.

use std::fmt;

use ephport_core::decision::{CtState, Evaluation, enforcing_policy, evaluate, permits};
use ephport_core::{Effect, Flow, PortRange, PortSet, ResolvedPolicy};

use super::Plan;
use crate::interpret::{self, InterpretError};

/// What happens to one connection, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation<'a> {
    /// The connection's opening packet.
    pub flow: Flow,
    /// The policy that translates the connection, and why those before it do not.
    pub evaluation: Evaluation<'a>,
    /// Whether the connection's packets are sent without IPsec, which would protect them if they were not
    /// translated: it is assumed that no IPsec policy matches their new source address.
    pub loses_ipsec: bool,
    /// The effect of the compiled program.
    pub effect: Effect,
    /// The rules that the program can pass, one list a random outcome.
    pub trails: Vec<Vec<Step>>,
    /// The policy that enforces its ports on the connection, if one does.
    pub enforcement: Option<Enforcement<'a>>,
    /// Whether the program does what the policies mean. It always does, or ephport has a fault.
    pub agrees: bool,
}

/// One rule that a program passes. Written `postrouting rule 3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Step {
    /// The name of the chain.
    pub chain: String,
    /// The number of the rule in the chain, from 1.
    pub rule: usize,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {}", self.chain, self.rule)
    }
}

/// What enforcement does with the source ports that a connection can get.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enforcement<'a> {
    /// The enforcing policy.
    pub policy: &'a ResolvedPolicy,
    /// The source ports that the policy permits to this source.
    pub permitted: PortSet,
    /// The source ports with which the connection is dropped; may be empty.
    pub dropped: PortSet,
    /// Whether the connection is dropped with every port that it can get.
    pub drops_all: bool,
}

impl Plan {
    /// Explain what happens to the connection that opens with `flow`.
    ///
    /// # Errors
    /// [`InterpretError`] when the table contains a rule that the interpreter does not support. A
    /// table from [`Plan::new`] contains none.
    pub fn explain(&self, flow: &Flow) -> Result<Explanation<'_>, InterpretError> {
        let Self { resolved, table, .. } = self;
        let evaluation = evaluate(resolved, flow);
        let effect = interpret::effect(table, flow)?;
        let ports = match &evaluation.matched {
            Some(matched) => matched.translation.ports.clone(),
            None => PortRange::from(flow.source_port()).into(),
        };
        let (state, judged) = (CtState::first(flow), evaluation.judged(flow));
        let mut agrees = effect == evaluation.effect();
        for port in ports.ranges().iter().flat_map(|range| [range.first(), range.last()]) {
            let permitted = permits(resolved, &judged, state, port);
            agrees &= interpret::permits(table, &judged, port)? == permitted;
        }
        let enforcement = enforcing_policy(resolved, &judged, state).map(|policy| {
            let permitted = policy.permitted_in(state, &judged).into_owned();
            let dropped = ports.difference(&permitted);
            Enforcement { policy, permitted, drops_all: dropped == ports, dropped }
        });
        let trails = trails(&interpret::paths(table, flow)?);
        let loses_ipsec = judged.is_ipsec() != flow.is_ipsec();
        let flow = flow.clone();
        Ok(Explanation { flow, evaluation, loses_ipsec, effect, trails, enforcement, agrees })
    }
}

fn trails(paths: &[interpret::Path]) -> Vec<Vec<Step>> {
    let step = |(chain, index): &(String, usize)| Step { chain: chain.clone(), rule: index + 1 };
    let trails = paths.iter().map(|path| path.trail.iter().map(step).collect::<Vec<_>>());
    trails.filter(|trail| !trail.is_empty()).collect()
}
