//! `ephport-nft whose`

use std::path::Path;

use ephport_core::{Address, Document, Policy, Port, Protocol, Target};

use super::{Failure, document};
use crate::Exit;
use crate::args::WhoseArgs;
use crate::document::{Level, SourceDocument, VERSION, WhoseDocument, ports};
use crate::journal::History;
use crate::output::Output;
use crate::time::Time;

pub(crate) fn run(args: WhoseArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let (document, since) = match (args.at, &args.journal) {
        (Some(at), Some(journal)) => recorded(at, journal, output)?.unzip(),
        _ => (Some(document(args.source)?), None),
    };
    let policies = document.as_ref().map(Document::policies).unwrap_or_default();
    let asked = args.endpoint;
    let sources: Vec<_> = policies.iter().filter_map(|policy| source(policy, asked)).collect();
    let is_found = !sources.is_empty();
    if args.output.json {
        let sources = sources.iter().map(Found::document).collect();
        output.document(&WhoseDocument {
            version: VERSION,
            sent_as: asked.into(),
            recorded_at: since,
            sources,
        });
    } else {
        for found in &sources {
            writeln!(output, "{}", found.line());
        }
        if !is_found {
            writeln!(output, "no source: {}", reason(policies, asked));
        }
    }
    Ok(if is_found { Exit::Success } else { Exit::Differs })
}

/// The policies that were installed at this time, and since when; `None` if none were.
fn recorded(
    at: Time,
    journal: &Path,
    output: &mut Output<'_>,
) -> Result<Option<(Document, String)>, Failure> {
    let history = History::read(journal)?;
    for line in &history.skipped {
        let message = format!("line {line} of {} is no record: it is skipped", journal.display());
        output.message(Level::Warning, "journal", None, &message);
    }
    let Some((since, text)) = history.at(at) else { return Ok(None) };
    let path = || journal.to_path_buf();
    let document = text.parse().map_err(|source| Failure::File { path: path(), source })?;
    Ok(Some((document, since.into())))
}

/// The source that a policy gives a port to.
struct Found<'a> {
    policy: &'a Policy,
    block: ephport_core::Block,
}

/// The source to which `policy` gives the port `asked`, if there is one.
fn source(policy: &Policy, asked: std::net::SocketAddr) -> Option<Found<'_>> {
    let Target::Blocks(blocks) = &policy.spec().target else { return None };
    let address = asked.ip();
    if matches!(policy.spec().address, Address::Fixed(fixed) if fixed != address) {
        return None;
    }
    let source = blocks.source_of(address, Port::new(asked.port()).ok()?)?;
    let block = blocks.block_of(source)?;
    (source.is_ipv4() == address.is_ipv4()).then_some(Found { policy, block })
}

fn reason(policies: &[Policy], asked: std::net::SocketAddr) -> String {
    let has_blocks =
        policies.iter().any(|policy| matches!(policy.spec().target, Target::Blocks(_)));
    if has_blocks {
        return format!("port {} of {} is in no block", asked.port(), asked.ip());
    }
    if policies.is_empty() {
        return "no policy was installed at that time".into();
    }
    "no policy has blocks, so all sources share its ports".into()
}

impl Found<'_> {
    fn line(&self) -> String {
        let ephport_core::Block { source, ports, .. } = self.block;
        let protocols = self.policy.spec().protocols();
        format!("{source}  policy {}: ports {ports}, {protocols}", self.policy.name())
    }

    fn document(&self) -> SourceDocument {
        let ephport_core::Block { source, outside, ports: range, .. } = self.block;
        SourceDocument {
            policy: self.policy.name().to_string(),
            source: source.to_string(),
            outside: outside.map(|outside| outside.to_string()),
            ports: ports(&range.into()),
            protocols: self
                .policy
                .spec()
                .protocols()
                .iter()
                .map(Protocol::name)
                .map(Into::into)
                .collect(),
        }
    }
}
