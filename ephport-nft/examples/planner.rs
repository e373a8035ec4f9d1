//! A planner: it computes on any host, as any user, what a policy does on a host whose facts were recorded.
//!
//! ```console
//! $ cargo run -p ephport-nft --features serde --example planner -- record > facts.json   # on that host
//! $ cargo run -p ephport-nft --features serde --example planner < facts.json             # anywhere
//! ```

use std::error::Error;
use std::io;

use ephport_core::{HostFacts, Policy, PortRange};
use ephport_nft::{Plan, host};

const BUILDS: PortRange = PortRange::new_assert(49152, 61000);

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("record") {
        serde_json::to_writer_pretty(io::stdout(), &host::facts()?)?;
        return Ok(());
    }
    let facts: HostFacts = serde_json::from_reader(io::stdin())?;
    let policy = Policy::to(BUILDS).named("builds").sources(["172.16.0.0/12"]).enforce().build()?;
    let plan = Plan::new([&policy], &facts)?;
    for warning in &plan.warnings {
        eprintln!("warning: {warning}");
    }
    let uplink = facts.uplinks.first().ok_or("the host has no uplink")?;
    let flow = format!("tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif {uplink} iif docker0");
    match plan.explain(&flow.parse()?)?.evaluation.matched {
        Some(matched) => println!("{flow}: {}", matched.translation.ports),
        None => println!("{flow}: not translated"),
    }
    print!("{}", plan.table.to_nft());
    Ok(())
}
