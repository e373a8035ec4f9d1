//! `ephport-nft explain`

use std::fmt;
use std::io::Write;

use ephport_core::document::{Outcome as Meaning, decide, enforcer, lets_out};
use ephport_core::{Decision, Flow, Port, PortRange, PortSet, Resolved};
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
    enforced: Option<Enforced<'a>>,
    agree: bool,
}

/// What enforcement takes of the ports that the connection can get.
struct Enforced<'a> {
    policy: &'a Resolved,
    dropped: PortSet,
    /// Whether that is all of them.
    wholly: bool,
}

impl<'a> Explained<'a> {
    fn new(request: &'a Request, flow: Flow) -> Result<Self, Failure> {
        let Request { policies, ruleset } = request;
        let meaning = decide(policies, &flow);
        let effect = interpret::effect(ruleset, &flow)?;
        let outcomes = interpret::outcomes(ruleset, &flow)?;
        let step = |(chain, index): &(String, usize)| format!("{chain} rule {}", index + 1);
        let trail = |outcome: &interpret::Outcome| {
            outcome.trail.iter().map(step).collect::<Vec<_>>().join(" -> ")
        };
        let trails = outcomes.iter().map(trail).filter(|trail| !trail.is_empty()).collect();
        let decision = meaning.winner.as_ref().map(|winner| &winner.decision);
        let ports = match decision {
            Some(Decision::Moved { ports, .. }) => ports.clone(),
            _ => PortRange::from(flow.source_port()).into(),
        };
        let mut agree = effect.agrees_with(decision);
        for port in ports.ranges().iter().flat_map(|range| [range.first(), range.last()]) {
            let program = interpret::lets_out(ruleset, &flow, port)?;
            agree &= program == lets_out(policies, &flow, port);
        }
        let enforced = enforcer(policies, &flow).map(|policy| {
            let dropped = ports.difference(&policy.leaves);
            Enforced { policy, wholly: dropped == ports, dropped }
        });
        Ok(Self { flow, meaning, effect, trails, enforced, agree })
    }

    fn print(&self, out: &mut dyn Write) -> Result<(), Failure> {
        writeln!(out, "{}", self.flow)?;
        for passed in &self.meaning.passed_over {
            writeln!(out, "  policy {}: not it: {}", passed.policy.name, passed.reason)?;
        }
        if let Some(winner) = &self.meaning.winner {
            let text = moved(&winner.decision).unwrap_or_default();
            writeln!(out, "  policy {}: {text}", winner.policy.name)?;
        } else {
            let port = self.flow.source_port();
            writeln!(out, "  no policy speaks of it: its port stays {port}")?;
        }
        if let Some(enforced) = &self.enforced {
            writeln!(out, "  {enforced}")?;
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
        let passed = self.meaning.passed_over.iter().map(|passed| {
            json!({ "policy": passed.policy.name.as_str(), "reason": passed.reason.to_string() })
        });
        let winner = self.meaning.winner.as_ref();
        let (ports, kept) = match winner.map(|winner| &winner.decision) {
            Some(Decision::Moved { ports, kept, .. }) => {
                (Some(ports.to_string()), kept.map(Port::get))
            }
            _ => (None, None),
        };
        let enforced = self.enforced.as_ref();
        json!({
            "flow": self.flow.to_string(),
            "policy": winner.map(|winner| winner.policy.name.as_str()),
            "ports": ports,
            "kept": kept,
            "passed_over": passed.collect::<Vec<_>>(),
            "enforced_by": enforced.map(|enforced| enforced.policy.name.as_str()),
            "dropped": enforced.filter(|e| !e.dropped.is_empty()).map(|e| e.dropped.to_string()),
            "program": self.trails,
            "agree": self.agree,
        })
    }
}

impl fmt::Display for Enforced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, dropped, wholly } = self;
        let (name, leaves) = (&policy.name, &policy.leaves);
        write!(f, "enforcement of policy {name}: ")?;
        match wholly {
            _ if dropped.is_empty() => f.write_str("let out"),
            true => write!(f, "dropped: it lets out {leaves} only"),
            false => write!(f, "dropped if it gets one of {dropped}: it lets out {leaves} only"),
        }
    }
}

fn moved(decision: &Decision) -> Option<String> {
    let Decision::Moved { ports, kept, address, .. } = decision else { return None };
    let address = render::address(*address);
    Some(match kept {
        Some(port) => format!("keeps port {port} if it is free, else one of {ports}; {address}"),
        None => format!("moves it to one of {ports}; {address}"),
    })
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Untouched => "its port stays".into(),
        Effect::Dropped => "it is dropped".into(),
        Effect::Moved { ports, .. } => format!("moves it to one of {ports}"),
    }
}
