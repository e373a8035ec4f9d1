//! The events of a scripted kernel: each datagram has one result.

mod scripted;

use std::collections::VecDeque;
use std::time::Duration;

use ephport_nft::Errno;
use ephport_nft::client::{Event, Events};
use ephport_nft::netlink::{CodecError, Header, NfGenMsg, Writer};
use ephport_nft::netlink::{NetlinkError, Transport};
use ephport_nft::nftables::{Commit, Generation};
use ephport_nft::uapi::{
    NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWGEN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE, NFTA_GEN_ID, NFTA_GEN_PROC_NAME, NFTA_GEN_PROC_PID,
};
use scripted::ruleset;

const NFT_MSG_NEWOBJ: u16 = 18;

/// What comes in, in order; then nothing.
struct Script(VecDeque<Result<Vec<u8>, NetlinkError>>);

impl Transport for Script {
    fn send(&mut self, _datagram: &[u8]) -> Result<(), NetlinkError> {
        panic!("a subscriber asks for nothing");
    }
    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.0.pop_front().transpose()
    }
    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        panic!("a subscriber waits for no answer");
    }
}

/// All events of these datagrams and failures.
fn events(script: Vec<Result<Vec<u8>, NetlinkError>>) -> Vec<Result<Event, NetlinkError>> {
    let mut events = Events::with_transport(Script(script.into()));
    std::iter::from_fn(|| events.next_within(Duration::ZERO)).collect()
}

/// The number of a kind of message, and what writes its body.
type Message<'a> = (u16, &'a dyn Fn(&mut Writer));

fn datagram(messages: &[Message<'_>]) -> Vec<u8> {
    let mut w = Writer::new();
    for (message, write) in messages {
        w.message(Header::nf_tables(*message, 0, 7), |w| write(w));
    }
    w.finish().unwrap()
}

fn generation(w: &mut Writer) {
    w.raw(&NfGenMsg::new(0).to_bytes());
    w.u32_be(NFTA_GEN_ID, 9);
    w.u32_be(NFTA_GEN_PROC_PID, 4711);
    w.string(NFTA_GEN_PROC_NAME, "nft");
}

fn committed() -> Event {
    Event::Generation(Commit {
        generation: Generation(9),
        port_id: 0,
        thread: Some(4711),
        thread_name: Some("nft".into()),
    })
}

#[test]
fn every_kind_of_message_is_its_event() {
    let ruleset = ruleset("1024-2047,4096-5119");
    let (table, chain, rule) = (&ruleset.table, &ruleset.chains[0], &ruleset.rules[0]);
    let (set, elements) =
        (&ruleset.sets[0].spec, scripted::messages_of(&ruleset.sets[0]).remove(0));
    let datagram = datagram(&[
        (NFT_MSG_NEWTABLE, &|w| table.encode(w)),
        (NFT_MSG_DELTABLE, &|w| table.encode(w)),
        (NFT_MSG_NEWCHAIN, &|w| chain.encode(w)),
        (NFT_MSG_DELCHAIN, &|w| chain.encode(w)),
        (NFT_MSG_NEWRULE, &|w| rule.encode(w)),
        (NFT_MSG_DELRULE, &|w| rule.encode(w)),
        (NFT_MSG_NEWSET, &|w| set.encode(w)),
        (NFT_MSG_DELSET, &|w| set.encode(w)),
        (NFT_MSG_NEWSETELEM, &|w| elements.encode(w)),
        (NFT_MSG_DELSETELEM, &|w| elements.encode(w)),
        (NFT_MSG_NEWOBJ, &|w| w.raw(&[1, 2, 3, 4])),
        (NFT_MSG_NEWCHAIN, &|w| w.raw(&scripted::foreign_object())),
        (NFT_MSG_NEWGEN, &generation),
    ]);
    let expected = [
        Event::NewTable(table.clone()),
        Event::DeletedTable(table.clone()),
        Event::NewChain(chain.clone()),
        Event::DeletedChain(chain.clone()),
        Event::NewRule(rule.clone()),
        Event::DeletedRule(rule.clone()),
        Event::NewSet(set.clone()),
        Event::DeletedSet(set.clone()),
        Event::NewElements(elements.clone()),
        Event::DeletedElements(elements.clone()),
        Event::Opaque { message_type: 10 << 8 | NFT_MSG_NEWOBJ, body: vec![1, 2, 3, 4] },
        Event::OtherTable { message: NFT_MSG_NEWCHAIN, family: 1, table: b"t\xff".to_vec() },
        committed(),
    ];
    assert_eq!(events(vec![Ok(datagram)]), expected.map(Ok));
}

#[test]
fn unreadable_and_foreign_messages_are_opaque() {
    let mut w = Writer::new();
    w.message(Header::nf_tables(NFT_MSG_NEWRULE, 0, 1), |w| w.raw(&[1, 0, 0, 0, 9]));
    w.message(Header { message_type: 1, flags: 0, seq: 1 }, |_| {});
    let expected = [
        Event::Opaque { message_type: 10 << 8 | NFT_MSG_NEWRULE, body: vec![1, 0, 0, 0, 9] },
        Event::Opaque { message_type: 1, body: Vec::new() },
    ];
    assert_eq!(events(vec![Ok(w.finish().unwrap())]), expected.map(Ok));
}

#[test]
fn lost_events_are_an_event_and_no_end() {
    for lost in
        [NetlinkError::Receive { errno: Errno::ENOBUFS }, NetlinkError::Cut { room: 65_536 }]
    {
        let sent = || Ok(datagram(&[(NFT_MSG_NEWGEN, &generation)]));
        let expected = [committed(), Event::Lost, committed()].map(Ok);
        assert_eq!(events(vec![sent(), Err(lost), sent()]), expected);
    }
}

#[test]
fn malformed_datagram_does_not_end_events() {
    let sent = || datagram(&[(NFT_MSG_NEWGEN, &generation)]);
    let cut = datagram(&[(NFT_MSG_NEWGEN, &generation), (NFT_MSG_NEWGEN, &generation)]);
    let read = events(vec![
        Ok(cut[..cut.len() - 8].to_vec()),
        Ok(vec![3; 21]),
        Err(NetlinkError::Receive { errno: Errno::ENOMEM }),
        Ok(sent()),
    ]);
    let truncated = |what, need, have| Err(CodecError::Truncated { what, need, have }.into());
    let expected = [
        Ok(committed()),
        truncated("message body", 28, 20),
        truncated("message body", 50_529_011, 5),
        Err(NetlinkError::Receive { errno: Errno::ENOMEM }),
        Ok(committed()),
    ];
    assert_eq!(read, expected);
    let whole = sent();
    for len in 1..whole.len() {
        let read = events(vec![Ok(whole[..len].to_vec())]);
        assert!(matches!(&read[..], [Err(NetlinkError::Answer(_))]), "{len}: {read:?}");
    }
}
