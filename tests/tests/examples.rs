//! The examples of ephport-nft that change a ruleset, run on hosts of their own.

#[path = "../../ephport-nft/examples/agent.rs"]
#[allow(dead_code, reason = "its `main`")]
mod agent;
#[path = "../../ephport-nft/examples/apply.rs"]
#[allow(dead_code, reason = "its `main`")]
mod apply;
#[path = "../../ephport-nft/examples/own_table.rs"]
#[allow(dead_code, reason = "its `main`")]
mod own_table;

use std::sync::mpsc;

use apply::Next;
use ephport_core::HostFacts;
use ephport_nft::client::{Interrupt, Options};
use ephport_nft::{Client, Installed, Plan, TableId};
use ephport_tests::tool::ok;
use ephport_tests::{Host, compiled, host_with_uplink};

#[test]
fn apply_decides_by_each_error() {
    let (host, _peer) = host_with_uplink();
    assert_eq!(
        host.run(|| apply::run("49152-61000").map_err(|e| e.to_string())),
        Ok(Next::Nothing)
    );
    assert!(ok(&host, "nft list ruleset").contains("masquerade to :49152-61000"));

    let plan = |host: &Host| {
        let facts = host.run(ephport_nft::host::facts).unwrap();
        let policy =
            ephport_core::Policy::to("1024-2047".parse::<ephport_core::PortSet>().unwrap());
        Plan::new(&[policy.build().unwrap()], &facts).unwrap()
    };
    let plan = plan(&host);
    let next = |client: &mut Client| apply::apply(client, &plan);
    let mut client = host.run(Client::open).unwrap();
    // Another program's table of this name.
    ok(&host, "nft delete table inet ephport");
    ok(&host, "nft add table inet ephport");
    let Next::Ask(text) = next(&mut client) else { panic!("foreign") };
    assert!(text.contains("has another owner"), "{text}");
    ok(&host, "nft delete table inet ephport");
    // A caller that gives up.
    let interrupt = Interrupt::new().unwrap();
    let mut interrupted = host.run(|| Options::new().interrupted_by(&interrupt).open()).unwrap();
    interrupt.raise();
    assert!(matches!(next(&mut interrupted), Next::TryAgain(_)));
    // A guard.
    let mut owner = host.run(Client::open).unwrap().owning().unwrap();
    owner.apply(&plan).unwrap();
    if owner.is_owner() {
        let other = compiled(
            "[[policy]]\nname = \"b\"\nout-interfaces = \"any\"\nto-ports = \"2048-3000\"\n",
        );
        let mut plan = plan.clone();
        plan.table = other;
        let Next::Ask(text) = apply::apply(&mut client, &plan) else { panic!("owned") };
        assert!(text.contains("is owned by"), "{text}");
    }
    drop(owner);
    assert_eq!(next(&mut client), Next::Nothing);
    assert!(ok(&host, "nft list ruleset").contains("masquerade to :1024-2047"));
}

#[test]
fn agent_restores_its_table() {
    let (host, _peer) = host_with_uplink();
    let id = TableId::new("agent", "a test").unwrap();
    let plan = {
        let facts = host.run(ephport_nft::host::facts).unwrap();
        let policy =
            ephport_core::Policy::to("1024-2047".parse::<ephport_core::PortSet>().unwrap());
        Plan::new(&[policy.build().unwrap()], &facts).and_then(|plan| plan.in_table(&id)).unwrap()
    };
    let (reports, reported) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let kept = (plan.clone(), id.clone());
    let agent = host
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .expect("a runtime");
            let stop = async { drop(stopped.await) };
            let report = |count| reports.send(count).expect("a test that waits");
            runtime
                .block_on(agent::keep(&kept.0, &kept.1, stop, report))
                .map_err(|error| error.to_string())
        })
        .unwrap();
    assert_eq!(reported.recv(), Ok(0));
    let before = ok(&host, "nft --stateless list table inet agent");
    // What another program does to its own table is not the agent's business.
    ok(&host, "nft add table inet other");
    ok(&host, "nft flush ruleset");
    assert_eq!(reported.recv(), Ok(1));
    assert_eq!(ok(&host, "nft --stateless list table inet agent"), before);
    ok(&host, "nft flush chain inet agent postrouting");
    assert_eq!(reported.recv(), Ok(2));
    assert_eq!(ok(&host, "nft --stateless list table inet agent"), before);
    drop(stop);
    assert_eq!(agent.join().unwrap(), Ok(()));
    assert_eq!(reported.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn own_table_has_the_rules_and_the_callers_chain() {
    let host = Host::new("host").unwrap();
    let facts = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
    let sent = host.run(|| own_table::install(&facts).map_err(|error| error.to_string()));
    assert!(sent.as_ref().is_ok_and(|sent| *sent > 2), "{sent:?}");
    let text = ok(&host, "nft list table inet mine");
    assert!(text.contains("chain my-chain {"), "{text}");
    assert!(text.contains("masquerade to :49152-61000"), "{text}");
    // The table is the caller's: ephport never changes it.
    let id = TableId::new("mine", "my own program").unwrap();
    let mut client = host.run(Client::open).unwrap().for_table(id);
    assert!(matches!(client.installed(), Ok(Installed::Foreign(_))));
}
