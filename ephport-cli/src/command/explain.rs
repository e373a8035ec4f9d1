//! `ephport-nft explain`

use std::fmt;
use std::io::Write;

use ephport_core::decision::{Evaluation, enforcing_policy, evaluate, permits};
use ephport_core::{Effect, Flow, Port, PortRange, PortSet, ResolvedPolicy, Translation};
use ephport_nft::interpret;
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
    evaluation: Evaluation<'a>,
    effect: Effect,
    /// The rules that the program comes through, as `postrouting rule 3`; several ways by chance.
    trails: Vec<String>,
    enforced: Option<Enforced<'a>>,
    agree: bool,
}

/// What enforcement takes of the ports that the connection can get.
struct Enforced<'a> {
    policy: &'a ResolvedPolicy,
    dropped: PortSet,
    /// Whether that is all of them.
    wholly: bool,
}

impl<'a> Explained<'a> {
    fn new(request: &'a Request, flow: Flow) -> Result<Self, Failure> {
        let Request { policies, ruleset } = request;
        let evaluation = evaluate(policies, &flow);
        let effect = interpret::effect(ruleset, &flow)?;
        let paths = interpret::paths(ruleset, &flow)?;
        let step = |(chain, index): &(String, usize)| format!("{chain} rule {}", index + 1);
        let trail =
            |path: &interpret::Path| path.trail.iter().map(step).collect::<Vec<_>>().join(" -> ");
        let trails = paths.iter().map(trail).filter(|trail| !trail.is_empty()).collect();
        let ports = match &evaluation.matched {
            Some(matched) => matched.translation.ports.clone(),
            None => PortRange::from(flow.source_port()).into(),
        };
        let mut agree = effect == evaluation.effect();
        for port in ports.ranges().iter().flat_map(|range| [range.first(), range.last()]) {
            let program = interpret::permits(ruleset, &flow, port)?;
            agree &= program == permits(policies, &flow, port);
        }
        let enforced = enforcing_policy(policies, &flow).map(|policy| {
            let dropped = ports.difference(&policy.permitted_source_ports);
            Enforced { policy, wholly: dropped == ports, dropped }
        });
        Ok(Self { flow, evaluation, effect, trails, enforced, agree })
    }

    fn print(&self, out: &mut dyn Write) -> Result<(), Failure> {
        writeln!(out, "{}", self.flow)?;
        for passed in &self.evaluation.non_matches {
            writeln!(out, "  policy {}: not it: {}", passed.policy.name, passed.reason)?;
        }
        if let Some(matched) = &self.evaluation.matched {
            let text = translated(&matched.translation);
            writeln!(out, "  policy {}: {text}", matched.policy.name)?;
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
        let passed = self.evaluation.non_matches.iter().map(|passed| {
            json!({ "policy": passed.policy.name.as_str(), "reason": passed.reason.to_string() })
        });
        let matched = self.evaluation.matched.as_ref();
        let translation = matched.map(|matched| &matched.translation);
        let enforced = self.enforced.as_ref();
        json!({
            "flow": self.flow.to_string(),
            "policy": matched.map(|matched| matched.policy.name.as_str()),
            "ports": translation.map(|translation| translation.ports.to_string()),
            "kept": translation.and_then(|translation| translation.keep).map(Port::get),
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
        let (name, leaves) = (&policy.name, &policy.permitted_source_ports);
        write!(f, "enforcement of policy {name}: ")?;
        match wholly {
            _ if dropped.is_empty() => f.write_str("let out"),
            true => write!(f, "dropped: it lets out {leaves} only"),
            false => write!(f, "dropped if it gets one of {dropped}: it lets out {leaves} only"),
        }
    }
}

fn translated(Translation { ports, keep, address, .. }: &Translation) -> String {
    let address = render::address(*address);
    match keep {
        Some(port) => format!("keeps port {port} if it is free, else one of {ports}; {address}"),
        None => format!("moves it to one of {ports}; {address}"),
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Untouched => "its port stays".into(),
        Effect::Dropped => "it is dropped".into(),
        Effect::Translated(Translation { ports, .. }) => format!("moves it to one of {ports}"),
    }
}
