//! The kernel's events after changes by ephport and by nft.

use std::os::fd::AsRawFd;
use std::time::Duration;

use ephport_nft::client::{Event, Events};
use ephport_nft::netlink::{Header, NfGenMsg, Writer};
use ephport_nft::nftables::Commit;
use ephport_nft::uapi::{NFNLGRP_NFTABLES, NFT_MSG_NEWTABLE};
use ephport_nft::{Client, TableState};
use ephport_tests::tool::{nft_load, ok};
use ephport_tests::{Host, apply, compiled, ephport_ok};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};

/// The kernel sends the events of a transaction before it acknowledges it: a later event does not exist.
const NOW: Duration = Duration::ZERO;

fn watch(host: &Host) -> Events {
    host.run(Events::open).expect("events")
}

/// The events so far, in words.
fn so_far(events: &mut Events) -> Vec<String> {
    std::iter::from_fn(|| events.next_within(NOW)).map(|event| words(&event.unwrap())).collect()
}

fn words(event: &Event) -> String {
    let (verb, noun) = match event {
        Event::NewTable(table) => ("+", format!("table {}", table.name)),
        Event::DeletedTable(table) => ("-", format!("table {}", table.name)),
        Event::NewChain(chain) => ("+", format!("chain {}", chain.name)),
        Event::DeletedChain(chain) => ("-", format!("chain {}", chain.name)),
        Event::NewRule(rule) => ("+", format!("rule of {}", rule.chain)),
        Event::DeletedRule(rule) => ("-", format!("rule of {}", rule.chain)),
        Event::NewSet(set) => ("+", format!("set {}", set.name)),
        Event::DeletedSet(set) => ("-", format!("set {}", set.name)),
        Event::NewElements(some) => ("+", format!("{} of {}", some.elements.len(), some.set)),
        Event::DeletedElements(some) => ("-", format!("{} of {}", some.elements.len(), some.set)),
        Event::Generation(_) => ("=", "committed".into()),
        Event::OtherTable { table, .. } => ("o", table.escape_ascii().to_string()),
        other => ("?", format!("{other:?}")),
    };
    format!("{verb} {noun}")
}

fn policy(ports: &str) -> TableState {
    compiled(&format!(
        "[[policy]]\nname = \"p\"\nprotocols = [\"udp\"]\nout-interfaces = \"any\"\n\
         to-ports = \"{ports}\"\naddress = \"masquerade\"\n"
    ))
}

fn blocks(last: u16) -> TableState {
    compiled(&format!(
        "[[policy]]\nname = \"b\"\nprotocols = [\"udp\"]\nout-interfaces = \"any\"\n\
         blocks = [\"10.0.0.1=1024-2047\", \"10.0.0.2=2048-{last}\"]\naddress = \"masquerade\"\n"
    ))
}

#[test]
fn events_of_a_transaction_are_in_order() {
    let host = Host::new("host").unwrap();
    let mut events = watch(&host);
    apply(&host, &policy("49152-61000"));
    // The table is added, deleted and added, so that it is new whatever there was.
    let installed = [
        "+ table ephport",
        "- table ephport",
        "+ table ephport",
        "+ chain postrouting",
        "+ rule of postrouting",
        "+ rule of postrouting",
        "+ rule of postrouting",
        "+ rule of postrouting",
        "+ rule of postrouting",
        "= committed",
    ];
    assert_eq!(so_far(&mut events), installed);
    apply(&host, &policy("49152-61000"));
    assert_eq!(so_far(&mut events), [""; 0]);
    // Only the rule that differs, and the one with the fingerprint.
    apply(&host, &policy("1024-2047"));
    let replaced = [
        "- rule of postrouting",
        "+ rule of postrouting",
        "- rule of postrouting",
        "+ rule of postrouting",
        "= committed",
    ];
    assert_eq!(so_far(&mut events), replaced);
    ephport_ok(&host, "remove");
    let removed = [
        "- rule of postrouting",
        "- rule of postrouting",
        "- rule of postrouting",
        "- rule of postrouting",
        "- rule of postrouting",
        "- chain postrouting",
        "- table ephport",
        "= committed",
    ];
    assert_eq!(so_far(&mut events), removed);
}

#[test]
fn commits_carry_the_port_id_of_their_author() {
    let host = Host::new("host").unwrap();
    let mut events = watch(&host);
    let mut client = host.run(Client::open).unwrap();
    client.apply(&policy("49152-61000")).unwrap();
    ephport_ok(&host, "remove");
    let commits = std::iter::from_fn(|| events.next_within(NOW)).filter_map(|event| match event {
        Ok(Event::Generation(commit)) => Some(commit.port_id),
        _ => None,
    });
    let own = client.port_id().unwrap();
    let is_own: Vec<_> = commits.map(|port_id| port_id == own).collect();
    assert_eq!(is_own, [true, false]);
}

#[test]
fn sets_and_elements_have_events() {
    let host = Host::new("host").unwrap();
    let mut events = watch(&host);
    apply(&host, &blocks(3071));
    assert_eq!(
        so_far(&mut events)[4..],
        [
            "+ set b/blocks4",
            "+ 1 of b/blocks4",
            "+ 1 of b/blocks4",
            "+ rule of postrouting",
            "+ rule of postrouting",
            "+ rule of postrouting",
            "+ rule of postrouting",
            "+ rule of postrouting",
            "= committed"
        ]
    );
    apply(&host, &blocks(3070));
    assert_eq!(
        so_far(&mut events),
        [
            "- 1 of b/blocks4",
            "+ 1 of b/blocks4",
            "- rule of postrouting",
            "+ rule of postrouting",
            "= committed"
        ]
    );
}

#[test]
fn changes_by_nft_name_its_thread() {
    let host = Host::new("host").unwrap();
    apply(&host, &policy("49152-61000"));
    let mut events = watch(&host);
    ok(&host, "nft insert rule inet ephport postrouting counter accept");
    let received: Vec<_> =
        std::iter::from_fn(|| events.next_within(NOW)).map(Result::unwrap).collect();
    let [Event::NewRule(rule), Event::Generation(commit)] = &received[..] else {
        panic!("{received:?}");
    };
    assert_eq!(rule.to_string(), "counter packets 0 bytes 0 accept");
    let Commit { generation, thread, thread_name, .. } = commit;
    assert!(thread.is_some());
    assert_eq!(thread_name.as_deref(), Some("nft"));
    let now = host.run(|| Client::open()?.generation());
    assert_eq!(now, Ok(*generation));
    // An object of another table, then an unknown object of ours.
    nft_load(&host, "table ip other {\n counter seen { packets 7 bytes 700 }\n}");
    assert_eq!(so_far(&mut events), ["o other", "o other", "= committed"]);
    ok(&host, "nft add counter inet ephport seen");
    let received = so_far(&mut events);
    assert!(received[0].starts_with("? Opaque { message_type: 2578, body: ["), "{received:?}");
}

#[test]
fn waiting_subscriber_is_woken() {
    let host = Host::new("host").unwrap();
    let mut events = watch(&host);
    assert_eq!(events.next_within(Duration::from_millis(1)), None);
    let waiting = std::thread::spawn(move || events.next());
    apply(&host, &policy("49152-61000"));
    assert!(matches!(waiting.join().unwrap(), Some(Ok(Event::NewTable(_)))));
}

#[test]
fn lost_events_are_reported_and_later_ones_arrive() {
    let host = Host::new("host").unwrap();
    let mut events = watch(&host);
    let table = compiled(
        "[[policy]]\nname = \"b\"\nout-interfaces = \"any\"\n\
         blocks = \"10.0.0.0/20=15@1024-65535\"\n",
    );
    let mut applies = 0;
    while events.next_within(NOW) != Some(Ok(Event::Lost)) {
        apply(&host, &table);
        ephport_ok(&host, "remove");
        applies += 1;
        assert!(applies < 100, "nothing is lost");
    }
    // What had room is still there; then all is as ever.
    let queued = so_far(&mut events);
    assert!(!queued.is_empty());
    apply(&host, &policy("49152-61000"));
    let received = so_far(&mut events);
    assert_eq!((received.len(), received.last().map(String::as_str)), (10, Some("= committed")));
}

#[test]
fn forged_events_are_ignored() {
    let host = Host::new("host").unwrap();
    let mut events = watch(&host);
    let mut w = Writer::new();
    w.message(Header::nf_tables(NFT_MSG_NEWTABLE, 0, 0), |w| {
        w.raw(&NfGenMsg::new(1).to_bytes());
        w.string(1, "forged");
    });
    let forged = w.finish().unwrap();
    host.run(|| {
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkNetFilter);
        let sender = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
        let group = NetlinkAddr::new(0, 1 << (NFNLGRP_NFTABLES - 1));
        let sent = sendto(sender.as_raw_fd(), &forged, &group, MsgFlags::empty());
        assert_eq!(sent, Ok(forged.len()));
    });
    ok(&host, "nft add table ip true");
    assert_eq!(so_far(&mut events), ["o true", "= committed"]);
}

#[test]
fn other_namespaces_have_no_events() {
    let (host, other) = (Host::new("host").unwrap(), Host::new("other").unwrap());
    let mut events = watch(&host);
    apply(&other, &policy("49152-61000"));
    assert_eq!(so_far(&mut events), [""; 0]);
}
