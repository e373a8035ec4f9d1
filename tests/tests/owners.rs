//! Several programs that embed ephport, and its command, in one network namespace. The judges are `nft` and the
//! sources that a server sees.

use std::net::SocketAddr;

use ephport_core::Document;
use ephport_nft::client::State;
use ephport_nft::table::TableIdError;
use ephport_nft::{Applied, Client, Error, Installed, Plan, TableId};
use ephport_tests::tool::{ok, tool};
use ephport_tests::{Host, Protocol, Routed, SERVER_V4, Server, connect, ephport, ephport_ok};

const COMMAND: &str = "-o wan0 --dport 443 --to-ports 30000-30999";

/// A policy for connections to one port, in the table of `id`.
fn plan(id: &TableId, port: u16, ports: &str) -> Plan {
    let document: Document = format!(
        "[[policy]]\nname = \"p\"\nout-interfaces = [\"wan0\"]\ndestination-ports = \"{port}\"\n\
         to-ports = \"{ports}\"\n"
    )
    .parse()
    .expect("a policy");
    let facts = ephport_core::HostFacts::default();
    Plan::new(document.policies(), &facts).and_then(|plan| plan.in_table(id)).expect("a plan")
}

fn client(host: &Host, id: &TableId) -> Client {
    host.run(Client::open).expect("a socket").for_table(id.clone())
}

fn ids() -> [TableId; 2] {
    let agent = TableId::new("node-agent", "node agent 2.1").unwrap().with_priority(80).unwrap();
    let mesh = TableId::new("mesh", "service mesh").unwrap().with_priority(81).unwrap();
    [agent, mesh]
}

/// The table as nft lists it, with its name; empty if there is none.
fn listed(host: &Host, table: &str) -> String {
    tool(host, "nft", &["--stateless", "list", "table", "inet", table], "").out
}

/// The source port that the server sees of a connection to this port.
fn source(net: &Routed, port: u16) -> u16 {
    let to = SocketAddr::new(SERVER_V4, port);
    net.client.run(|| connect(Protocol::Tcp, 40_000, to)).expect("a connection").seen.port()
}

#[test]
fn each_program_sees_and_changes_its_own_table() {
    let net = Routed::new().unwrap();
    let _servers = [443, 444, 445].map(|port| Server::start(&net.server, port).unwrap());
    let router = &net.router;
    let [agent_id, mesh_id] = ids();
    let (mut agent, mut mesh) = (client(router, &agent_id), client(router, &mesh_id));
    let (agents, meshs) = (plan(&agent_id, 444, "31000-31999"), plan(&mesh_id, 445, "32000-32999"));
    ephport_ok(router, &format!("apply {COMMAND}"));
    assert_eq!(agent.apply(&agents), Ok(Applied::Installed));
    assert_eq!(mesh.apply(&meshs), Ok(Applied::Installed));

    // Packets get the port of their policy, whatever its table.
    assert!((30_000..=30_999).contains(&source(&net, 443)));
    assert!((31_000..=31_999).contains(&source(&net, 444)));
    assert!((32_000..=32_999).contains(&source(&net, 445)));
    let text = listed(router, "node-agent");
    assert!(text.contains("comment \"node agent 2.1\""), "{text}");
    assert!(text.contains("priority 80;"), "{text}");
    let before = ["ephport", "node-agent", "mesh"].map(|table| listed(router, table));

    // A change by another process is drift for the owner, and for nobody else.
    ok(router, "nft flush chain inet node-agent postrouting");
    assert_eq!(agent.status(&agents).unwrap().state, State::Drifted);
    assert_eq!(mesh.status(&meshs).unwrap().state, State::Intact);
    let status = ephport(router, "status").out;
    assert!(!status.contains("drifted"), "{status}");
    assert_eq!(mesh.apply(&meshs), Ok(Applied::Unchanged));
    assert_eq!(agent.apply(&agents), Ok(Applied::Updated));
    assert_eq!(["ephport", "node-agent", "mesh"].map(|table| listed(router, table)), before);

    // Each removes its own.
    assert_eq!(mesh.remove(), Ok(true));
    assert_eq!(mesh.remove(), Ok(false));
    ephport_ok(router, "remove");
    assert_eq!(ok(router, "nft list tables").trim(), "table inet node-agent");
    assert_eq!(agent.status(&agents).unwrap().state, State::Intact);
    ephport_ok(router, &format!("apply {COMMAND}"));
    assert_eq!(agent.remove(), Ok(true));
    assert_eq!(ok(router, "nft list tables").trim(), "table inet ephport");
    assert_eq!(listed(router, "ephport"), before[0]);
}

#[test]
fn a_table_of_another_owner_is_foreign_whatever_its_name() {
    let host = Host::new("host").unwrap();
    let mine = TableId::default();
    let theirs = TableId::new(mine.name(), "another program").unwrap();
    assert_eq!(
        client(&host, &theirs).apply(&plan(&theirs, 444, "31000-31999")),
        Ok(Applied::Installed)
    );
    let before = listed(&host, mine.name());
    let desired = plan(&mine, 443, "30000-30999");
    let mut client = client(&host, &mine);
    let foreign = || Error::Foreign { table: "ephport".into() };
    assert!(matches!(client.installed(), Ok(Installed::Foreign(_))));
    assert_eq!(client.apply(&desired), Err(foreign()));
    assert_eq!(client.restore(&desired.table), Err(foreign()));
    assert_eq!(client.remove(), Err(foreign()));
    for line in [format!("apply {COMMAND}"), "remove".into()] {
        let refused = ephport(&host, &line);
        assert!(refused.err.contains("another owner"), "{line}: {}", refused.err);
    }
    assert_eq!(listed(&host, mine.name()), before);
}

/// Of tables with the same priority, the kernel asks the newest first.
#[test]
fn the_lower_priority_decides_then_the_newer_table() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    let id = |name, priority| TableId::new(name, name).unwrap().with_priority(priority).unwrap();
    let install = |id: &TableId, ports| {
        let applied = client(&net.router, id).apply(&plan(id, 443, ports));
        assert_eq!(applied, Ok(Applied::Installed));
    };
    install(&id("first", 90), "30000-30999");
    install(&id("newer", 90), "31000-31999");
    assert!((31_000..=31_999).contains(&source(&net, 443)));
    install(&id("later", 91), "32000-32999");
    assert!((31_000..=31_999).contains(&source(&net, 443)));
    install(&id("lower", 89), "33000-33999");
    assert!((33_000..=33_999).contains(&source(&net, 443)));
}

/// What `TableId` accepts, nft lists and loads; what it refuses by name, this nft refuses too, or an earlier or
/// later one.
#[test]
fn nft_lists_and_loads_each_accepted_name() {
    let host = Host::new("host").unwrap();
    for name in ["a", "node-agent", "nat.1", "kube/ports_2", "x-", "nodes", &"n".repeat(255)] {
        let id = TableId::new(name, "owner with spaces, 'quotes' and ünïcode").unwrap();
        let mut client = client(&host, &id);
        assert_eq!(client.apply(&plan(&id, 443, "30000-30999")), Ok(Applied::Installed), "{name}");
        let text = ok(&host, "nft list ruleset");
        ok(&host, "nft flush ruleset");
        let loaded = tool(&host, "nft", &["-f", "-"], &text);
        assert!(loaded.success, "{name}: {}", loaded.err);
        assert_eq!(listed(&host, name).lines().next(), Some(&*format!("table inet {name} {{")));
        assert_eq!(client.remove(), Ok(true), "{name}");
    }
    for name in ["counter", "ip", "table", "type", "drop", "comment"] {
        assert_eq!(TableId::new(name, "me"), Err(TableIdError::Reserved(name.into())));
        assert!(!tool(&host, "nft", &["add", "table", "inet", name], "").success, "{name}");
    }
    // At and below the priority of conntrack the kernel has no NAT.
    let add = |priority: i32| {
        let chain = format!(
            "table inet t {{ chain c {{ type nat hook postrouting priority {priority}; }}; }}"
        );
        tool(&host, "nft", &["-c", "-f", "-"], &chain).success
    };
    let id = TableId::new("t", "me").unwrap();
    for priority in [-201, -200, -199, 0, 300, i32::MAX] {
        assert_eq!(id.clone().with_priority(priority).is_ok(), add(priority), "{priority}");
    }
}
