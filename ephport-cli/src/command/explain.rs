//! `ephport-nft explain`

use std::io::Write;

use ephport_core::document::{Outcome as Meaning, decide, lets_out};
use ephport_core::{Decision, Flow, Port};
use ephport_nft::interpret::{self, Effect};
use serde_json::{Value, json};

use super::{Failure, Request, document};
use crate::Exit;
use crate::args::ExplainArgs;
use crate::render;

pub(crate) fn run(
    args: ExplainArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Failure> {
    let request = Request::new(&document(args.source)?, err)?;
    let explained = Explained::new(&request, args.flow)?;
    if args.output.json {
        writeln!(out, "{:#}", explained.json())?;
    } else {
        explained.print(out)?;
    }
    Ok(if explained.agree { Exit::Success } else { Exit::Failure })
}

/// What becomes of a connection, by the policies' meaning and by their program.
struct Explained<'a> {
    flow: Flow,
    meaning: Meaning<'a>,
    effect: Effect,
    /// The rules that the program comes through, as `postrouting rule 3`; several ways by chance.
    trails: Vec<String>,
    /// Whether it may leave with its own port, where enforcement decides.
    lets_out: bool,
    agree: bool,
}

impl<'a> Explained<'a> {
    fn new(request: &'a Request, flow: Flow) -> Result<Self, Failure> {
        let meaning = decide(&request.policies, &flow);
        let effect = interpret::effect(&request.ruleset, &flow)?;
        let outcomes = interpret::outcomes(&request.ruleset, &flow)?;
        let step = |(chain, index): &(String, usize)| format!("{chain} rule {}", index + 1);
        let trail = |outcome: &interpret::Outcome| {
            outcome.trail.iter().map(step).collect::<Vec<_>>().join(" -> ")
        };
        let decision = meaning.winner.as_ref().map(|winner| &winner.decision);
        let lets_out = lets_out(&request.policies, &flow, flow.source_port());
        let program_lets_out = interpret::lets_out(&request.ruleset, &flow, flow.source_port())?;
        let agree = effect.agrees_with(decision) && program_lets_out == lets_out;
        let trails = outcomes.iter().map(trail).filter(|trail| !trail.is_empty()).collect();
        Ok(Self { flow, meaning, effect, trails, lets_out, agree })
    }

    fn print(&self, out: &mut dyn Write) -> Result<(), Failure> {
        writeln!(out, "{}", self.flow)?;
        for passed in &self.meaning.passed_over {
            writeln!(out, "  policy {}: not it: {}", passed.policy.name, passed.reason)?;
        }
        match &self.meaning.winner {
            None => {
                writeln!(
                    out,
                    "  no policy speaks of it: its port stays {}",
                    self.flow.source_port()
                )?;
            }
            Some(winner) => {
                let text = moved(&winner.decision).unwrap_or_default();
                writeln!(out, "  policy {}: {text}", winner.policy.name)?;
            }
        }
        if self.meaning.winner.is_none() && !self.lets_out {
            writeln!(out, "  enforcement: dropped, since that port may not leave")?;
        }
        for trail in &self.trails {
            writeln!(out, "  program: {trail}")?;
        }
        if self.agree {
            writeln!(out, "  the policy's meaning and its program agree")?;
        } else {
            writeln!(out, "  THE PROGRAM DOES SOMETHING ELSE: {}", effect(&self.effect))?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let passed: Vec<_> = self
            .meaning
            .passed_over
            .iter()
            .map(|passed| json!({ "policy": passed.policy.name.as_str(), "reason": passed.reason.to_string() }))
            .collect();
        let winner = self.meaning.winner.as_ref();
        let (ports, kept) = match winner.map(|winner| &winner.decision) {
            Some(Decision::Moved { ports, kept, .. }) => {
                (Some(ports.to_string()), kept.map(Port::get))
            }
            _ => (None, None),
        };
        json!({
            "flow": self.flow.to_string(),
            "policy": winner.map(|winner| winner.policy.name.as_str()),
            "ports": ports,
            "kept": kept,
            "passed_over": passed,
            "lets_own_port_out": self.lets_out,
            "program": self.trails,
            "agree": self.agree,
        })
    }
}

fn moved(decision: &Decision) -> Option<String> {
    let Decision::Moved { ports, kept, address } = decision else { return None };
    let address = render::address(*address);
    Some(match kept {
        Some(port) => format!("keeps port {port} if it is free, else one of {ports}; {address}"),
        None => format!("moves it to one of {ports}; {address}"),
    })
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Untouched => "its port stays".into(),
        Effect::Moved { ports, .. } => format!("moves it to one of {ports}"),
    }
}
