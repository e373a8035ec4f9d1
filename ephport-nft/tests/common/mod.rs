//! The program against the policies, one packet at a time.
#![allow(dead_code)] // Each test uses a part.

use ephport_core::{Document, Flow, HostFacts, Port, Protocol, Resolved};
use ephport_core::{decide, lets_out, lets_unplaced_out};
use ephport_nft::interpret::{self, Effect, Packet, Standing};
use ephport_nft::{Ruleset, compile};

/// The program of a document, and its policies; `None` if it means nothing on this host.
pub(crate) fn compiled(document: &Document) -> Option<(Ruleset, Vec<Resolved>)> {
    let policies = document.resolve(&HostFacts::default()).ok()?;
    Some((compile(&policies).expect("a program"), policies))
}

/// Why the program does something else with a connection than the policies mean, if it does.
pub(crate) fn mistranslated(
    ruleset: &Ruleset,
    policies: &[Resolved],
    flow: &Flow,
    packet: &Packet<'_>,
) -> Option<String> {
    let outcome = decide(policies, flow);
    // Of other protocols no policy speaks.
    let is_known = Protocol::from_number(packet.protocol()).is_some();
    let meant = outcome.winner.map(|winner| winner.decision).filter(|_| is_known);
    let found = interpret::run(ruleset, ephport_nft::compile::POSTROUTING, packet)
        .and_then(|outcomes| Effect::of(&outcomes, flow.source()));
    match found {
        Ok(effect) if effect.agrees_with(meant.as_ref()) => None,
        other => Some(format!("{flow}: meant {meant:?}, program {other:?}")),
    }
}

/// Why the program lets a packet out that must not leave by the port `leaving`, or does not let one
/// out that may, if so.
pub(crate) fn misjudged(
    ruleset: &Ruleset,
    policies: &[Resolved],
    flow: &Flow,
    leaving: Port,
    packet: &Packet<'_>,
) -> Option<String> {
    let meant = Protocol::from_number(packet.protocol()).is_none()
        || match packet.standing() {
            Standing::New | Standing::Established => lets_out(policies, flow, leaving),
            // Its source port is that of a server of ours.
            Standing::Reply => true,
            Standing::Invalid => lets_unplaced_out(policies, flow),
        };
    let found = interpret::lets_packet_out(ruleset, packet);
    (found != Ok(meant))
        .then(|| format!("{packet:?} by {leaving}: let out {meant}, program {found:?}"))
}
