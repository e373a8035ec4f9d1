//! `ephport-nft usage --outside`: connections with a source port that their policy does not permit.

use ephport_core::ResolvedPolicy;
use ephport_nft::conntrack::{Connections, Placement, Sent, Usage};
use ephport_nft::host;

use super::filter;
use crate::Exit;
use crate::command::Failure;
use crate::document::{OutsideConnection, VERSION};
use crate::output::Output;
use crate::render;

/// Prints each connection as it is read, so that none is kept.
pub(super) fn run(
    policies: &[ResolvedPolicy],
    json: bool,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let addresses = host::addresses().map_err(Failure::Host)?;
    let mut usage = Usage::new(policies, &addresses);
    let (mut count, mut outside) = (0_u64, 0_u64);
    if json {
        write!(output, "{{\n  \"version\": {VERSION},\n  \"outside\": [");
    }
    for connection in Connections::open(filter(policies))? {
        let connection = connection?;
        let Some((policy, sent, placement)) = usage.add(&connection) else { continue };
        count += 1;
        if placement != Placement::Outside {
            continue;
        }
        if json {
            let document = OutsideConnection::new(policy, &connection, &sent);
            let text = serde_json::to_string(&document).map_err(|e| Failure::Fault(e.into()))?;
            write!(output, "{}\n    {text}", if outside == 0 { "" } else { "," });
        } else {
            writeln!(output, "{}", line(policy, &sent));
        }
        outside += 1;
    }
    if json {
        let unknown = usage.unknown();
        let end = if outside == 0 { "" } else { "\n  " };
        writeln!(output, "{end}],\n  \"connections\": {count},\n  \"not_counted\": {unknown}\n}}");
    } else {
        writeln!(output, "{outside} of {count} connections are outside the ports of their policy");
        if usage.unknown() > 0 {
            writeln!(
                output,
                "{} more are forwarded without source NAT: conntrack does not record their\n\
                 direction, and no policy names their sources",
                usage.unknown()
            );
        }
    }
    Ok(if outside == 0 { Exit::Success } else { Exit::Differs })
}

fn line(policy: &ResolvedPolicy, sent: &Sent) -> String {
    let Sent { protocol, source, outside, destination, .. } = sent;
    let from = if source == outside { String::new() } else { format!("  from {source}") };
    let destination = render::destination(*protocol, *destination);
    format!("{protocol} {outside} -> {destination}{from}  policy {}", policy.name)
}
