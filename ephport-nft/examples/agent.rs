//! An agent that watches its table with tokio, and restores it after changes by other processes.
//!
//! As root: `cargo run -p ephport-nft --example agent -- 49152-61000`

use std::error::Error;
use std::future::Future;

use ephport_core::{Policy, PortSet};
use ephport_nft::client::{Event, Events};
use ephport_nft::{Applied, Client, Plan, TableId, host};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

fn main() -> Result<(), Box<dyn Error>> {
    let ports = std::env::args().nth(1).unwrap_or_else(|| "49152-61000".into());
    let policy = Policy::to(ports.parse::<PortSet>()?).build()?;
    let id = TableId::new("agent", "the example of ephport-nft")?.with_priority(85)?;
    let plan = Plan::new(&[policy], &host::facts()?)?.in_table(&id)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(keep(&plan, &id, std::future::pending(), |restored| {
        println!("restored {restored} times");
    }))
}

/// Keep the plan installed until `stop`. Calls `report` with the count of changes that were undone, at first 0.
#[allow(deprecated, reason = "tokio's successor is unsafe; `Events` keeps its descriptor open")]
pub(crate) async fn keep(
    plan: &Plan,
    id: &TableId,
    stop: impl Future<Output = ()>,
    mut report: impl FnMut(u32),
) -> Result<(), Box<dyn Error>> {
    let mut client = Client::open()?.for_table(id.clone());
    let own = client.port_id()?;
    // Subscribed before the first apply: no change between the two is missed.
    let events = Events::open()?.of_table(id.clone());
    let mut events = AsyncFd::with_interest(events, Interest::READABLE)?;
    client.apply(plan)?;
    let mut restored = 0;
    report(restored);
    let mut is_touched = false;
    tokio::pin!(stop);
    loop {
        let mut ready = tokio::select! {
            ready = events.readable_mut() => ready?,
            () = &mut stop => return Ok(()),
        };
        let mut is_changed = false;
        // A datagram may have several events: read until there is none.
        while let Some(event) = ready.get_inner_mut().try_next() {
            match event {
                // The commit of all events since the last one: by this client, or by another process.
                Ok(Event::Generation(commit)) => {
                    is_changed |= is_touched && !commit.is_of(own);
                    is_touched = false;
                }
                // Its commit may be lost too.
                Ok(Event::Lost) | Err(_) => is_changed = true,
                Ok(event) => is_touched |= event.may_change(id),
            }
        }
        ready.clear_ready();
        // A call takes about a millisecond; for large tables use `tokio::task::spawn_blocking`.
        if is_changed && client.apply(plan)? != Applied::Unchanged {
            restored += 1;
            report(restored);
        }
    }
}
