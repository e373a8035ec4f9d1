//! `ephport-nft explain`

use std::collections::BTreeMap;

use ephport_core::{ConnectionTimeouts, Effect, ExpectedConnections, Flow, OpenConnections, Port};
use ephport_nft::{Client, Explanation, Plan, host, plan};

use super::{Failure, document, plan};
use crate::Exit;
use crate::args::ExplainArgs;
use crate::document::{Enforcement, Explain, NonMatch, Translation, VERSION, Warning, ports};
use crate::output::Output;
use crate::render;

pub(crate) fn run(args: ExplainArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let plan = plan(&document(args.source)?, output)?;
    let flow = host::placed(args.flow.clone()).map_err(Failure::Host)?;
    let explanation = plan.explain(&flow)?;
    let others = others(&plan);
    if args.output.json {
        output.document(&explain(&explanation, others));
    } else {
        print(&args.flow, &explanation, output);
        for other in &others {
            writeln!(output, "  {}", other.message());
        }
    }
    Ok(if explanation.agrees { Exit::Success } else { Exit::Failure })
}

/// The rules of other tables that may decide on the connection instead. They are not read without the privilege
/// to read them, which an explanation does not need.
fn others(plan: &Plan) -> Vec<Warning> {
    let others = Client::open().and_then(|mut client| client.interferences(&plan.facts));
    match others {
        Ok(others) => others.iter().map(|other| Warning::new(other.name(), None, other)).collect(),
        Err(error) => {
            let message = format!("the rules of other tables are not considered: {error}");
            vec![Warning::new("kernel", None, &message)]
        }
    }
}

fn print(asked: &Flow, explanation: &Explanation<'_>, output: &mut Output<'_>) {
    let Explanation { flow, evaluation, effect, trails, enforcement, agrees, .. } = explanation;
    writeln!(output, "{flow}");
    if let Some(added) = flow.in_interface().filter(|_| flow != asked) {
        let source = flow.source().ip();
        writeln!(
            output,
            "  {source} is no address of this host: forwarded, and from {added} by its route"
        );
    } else if flow != asked {
        writeln!(output, "  {} is an address of another interface", flow.source().ip());
    }
    for other in &evaluation.non_matches {
        writeln!(output, "  policy {}: no match: {}", other.policy.name, other.reason);
    }
    match &evaluation.matched {
        Some(matched) => {
            let (name, text) = (&matched.policy.name, translated(flow, &matched.translation));
            writeln!(output, "  policy {name}: {text}");
            writeln!(output, "  source address: {}", render::address(matched.translation.address));
            let timeouts = &matched.translation.timeouts;
            if !timeouts.is_empty() {
                writeln!(output, "  timeouts: {timeouts}");
            }
        }
        None => writeln!(
            output,
            "  not translated by ephport (another NAT rule may): {} {}",
            if flow.protocol().has_ports() { "source port" } else { "identifier" },
            flow.source_port()
        ),
    }
    if explanation.loses_ipsec {
        writeln!(
            output,
            "  IPsec: sent without, unless an IPsec policy matches the new source address"
        );
    }
    if let Some(enforcement) = enforcement {
        writeln!(output, "  {}", enforced(enforcement));
    }
    for trail in trails {
        let steps: Vec<_> = trail.iter().map(ToString::to_string).collect();
        writeln!(output, "  program: {}", steps.join(" -> "));
    }
    if *agrees {
        writeln!(output, "  the policies and their program agree");
    } else {
        writeln!(output, "  THE PROGRAM DIFFERS FROM THE POLICIES: {}", program(flow, effect));
    }
}

fn enforced(
    plan::Enforcement { policy, permitted, dropped, drops_all, .. }: &plan::Enforcement<'_>,
) -> String {
    let name = &policy.name;
    let effect = match drops_all {
        _ if dropped.is_empty() => "permitted".into(),
        true => format!("dropped: only {permitted} are permitted"),
        false => format!("dropped with one of {dropped}: only {permitted} are permitted"),
    };
    let text = format!("enforcement of policy {name}: {effect}");
    let excepted = [
        (policy.expected_connections == ExpectedConnections::Pass, "a helper expected it"),
        (policy.open_connections == OpenConnections::Keep, "it was open when first enforced"),
    ];
    let excepted: Vec<_> =
        excepted.iter().filter(|(is_excepted, _)| *is_excepted).map(|(_, why)| *why).collect();
    if dropped.is_empty() || excepted.is_empty() {
        return text;
    }
    format!("{text} (it passes if {})", excepted.join(", or if "))
}

fn translated(flow: &Flow, translation: &ephport_core::Translation) -> String {
    let ports = &translation.ports;
    let what = if flow.protocol().has_ports() { "port" } else { "identifier" };
    match translation.keep {
        Some(port) => format!("keeps {what} {port} if it is free, else one of {ports}"),
        None => format!("translates it to one of {ports}"),
    }
}

fn program(flow: &Flow, effect: &Effect) -> String {
    match effect {
        Effect::Untouched => "not translated".into(),
        Effect::Dropped => "dropped".into(),
        Effect::Translated(translation) => translated(flow, translation),
    }
}

fn timeouts(timeouts: &ConnectionTimeouts) -> BTreeMap<String, u32> {
    timeouts.states().iter().map(|(state, seconds)| (state.name().into(), *seconds)).collect()
}

fn explain(explanation: &Explanation<'_>, warnings: Vec<Warning>) -> Explain {
    let Explanation { flow, evaluation, trails, enforcement, agrees, .. } = explanation;
    let translation = evaluation.matched.as_ref().map(|matched| Translation {
        policy: matched.policy.name.to_string(),
        ports: ports(&matched.translation.ports),
        keep: matched.translation.keep.map(Port::get),
        address: matched.translation.address.to_string(),
        timeouts: timeouts(&matched.translation.timeouts),
    });
    let non_match = |other: &ephport_core::NonMatch<'_>| NonMatch {
        policy: other.policy.name.to_string(),
        kind: kebab_case(&format!("{:?}", other.reason)),
        message: other.reason.to_string(),
    };
    let enforcement = enforcement.as_ref().map(|enforcement| Enforcement {
        policy: enforcement.policy.name.to_string(),
        permitted: ports(&enforcement.permitted),
        dropped: ports(&enforcement.dropped),
        drops_all: enforcement.drops_all,
    });
    Explain {
        version: VERSION,
        flow: flow.to_string(),
        translation,
        non_matches: evaluation.non_matches.iter().map(non_match).collect(),
        enforcement,
        program: trails.iter().map(|trail| trail.iter().map(Into::into).collect()).collect(),
        agrees: *agrees,
        warnings,
    }
}

/// `NotUnicast` as `not-unicast`.
fn kebab_case(name: &str) -> String {
    let mut text = String::new();
    for (index, character) in name.char_indices() {
        if character.is_ascii_uppercase() && index > 0 {
            text.push('-');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}
