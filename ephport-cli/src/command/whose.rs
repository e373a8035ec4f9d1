//! `ephport-nft whose`

use ephport_core::{Address, Policy, Port, Protocol, Target};

use super::{Failure, document};
use crate::Exit;
use crate::args::WhoseArgs;
use crate::document::{SourceDocument, VERSION, WhoseDocument, ports};
use crate::output::Output;

pub(crate) fn run(args: WhoseArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let document = document(args.source)?;
    let asked = args.endpoint;
    let sources: Vec<_> =
        document.policies().iter().filter_map(|policy| source(policy, asked)).collect();
    let is_found = !sources.is_empty();
    if args.output.json {
        let sources = sources.iter().map(Found::document).collect();
        output.document(&WhoseDocument { version: VERSION, sent_as: asked.into(), sources });
    } else {
        for found in &sources {
            writeln!(output, "{}", found.line());
        }
        if !is_found {
            writeln!(output, "no source: {}", reason(document.policies(), asked));
        }
    }
    Ok(if is_found { Exit::Success } else { Exit::Differs })
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
    "no policy has blocks, so all sources share its ports".into()
}

impl Found<'_> {
    fn line(&self) -> String {
        let ephport_core::Block { source, ports, .. } = self.block;
        let protocols = self.policy.spec().scope.protocols;
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
                .scope
                .protocols
                .iter()
                .map(Protocol::name)
                .map(Into::into)
                .collect(),
        }
    }
}
