//! The fake kernel of ephport-testkit against the real one: random lists of operations get the same answers,
//! and leave the same objects with the same handles.

use std::collections::BTreeSet;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ephport_nft::client::Transport;
use ephport_nft::netlink::{
    Header, NetlinkError, NfGenMsg, Reader, Socket, Writer, dump, exchange,
};
use ephport_nft::nftables::{Chain, Elements, Rule, SetSpec, Table};
use ephport_nft::uapi::{
    NFPROTO_UNSPEC, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETOBJ, NFT_MSG_GETRULE,
    NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE, NFTA_CHAIN_USE, NFTA_OBJ_HANDLE,
    NFTA_OBJ_NAME, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE, NFTA_OBJ_USE, NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE, NFTA_TABLE_USE, NLM_F_DUMP, NLM_F_REQUEST,
};
use ephport_testkit::{Batch, Kernel, Random, lists};
use ephport_tests::Host;

/// The lists of a run; with `EPHPORT_LONG` ten times as many.
const LISTS: u64 = 10_000;

/// The namespaces in which lists are sent at the same time.
const HOSTS: usize = 32;

/// The objects that a request lists: each body.
fn listed(
    transport: &mut impl Transport,
    kind: u16,
    family: u8,
    names: &[(u16, &str)],
) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let mut w = Writer::new();
    w.message(Header::nf_tables(kind, NLM_F_REQUEST | NLM_F_DUMP, 1), |w| {
        w.raw(&NfGenMsg::new(family).to_bytes());
        for (attribute, name) in names {
            w.string(*attribute, name);
        }
    });
    let mut bodies = Vec::new();
    dump(transport, &w.finish()?, 1, |_, body| {
        bodies.push(body.to_vec());
        Ok(())
    })?;
    Ok(bodies)
}

/// A number in an attribute of a body; its bytes in hexadecimal.
fn attribute(body: &[u8], attribute: u16) -> String {
    let mut reader = Reader::new(body);
    NfGenMsg::decode(&mut reader).expect("a body");
    let mut attrs = reader.attrs().map(|attr| attr.expect("an attribute"));
    let found = attrs.find(|attr| attr.attribute_type == attribute);
    found.map_or_else(|| "-".into(), |attr| format!("{:02x?}", attr.value))
}

/// All objects, as text that does not depend on the order of tables' numbers and of hashes.
fn objects(transport: &mut impl Transport) -> Vec<String> {
    let mut list = |kind| listed(transport, kind, NFPROTO_UNSPEC, &[]).expect("a dump");
    let mut texts = Vec::new();
    for body in list(NFT_MSG_GETTABLE) {
        let table = Table { handle: None, ..Table::decode(&body).expect("a table") };
        texts.push(format!("{table:?} use {}", attribute(&body, NFTA_TABLE_USE)));
    }
    for body in list(NFT_MSG_GETCHAIN) {
        let mut chain = Chain::decode(&body).expect("a chain");
        // The counters of its policy.
        chain.other.clear();
        texts.push(format!("{chain:?} use {}", attribute(&body, NFTA_CHAIN_USE)));
    }
    for body in list(NFT_MSG_GETRULE) {
        let rule = Rule::decode(&body).expect("a rule");
        let (handle, position) = (rule.handle, rule.position);
        texts.push(format!("{:?} {handle:?} after {position:?}", rule.normalized()));
    }
    for body in list(NFT_MSG_GETOBJ) {
        let attributes =
            [NFTA_OBJ_TABLE, NFTA_OBJ_NAME, NFTA_OBJ_TYPE, NFTA_OBJ_HANDLE, NFTA_OBJ_USE];
        texts.push(format!("{} {:?}", body[0], attributes.map(|kind| attribute(&body, kind))));
    }
    for body in list(NFT_MSG_GETSET) {
        let mut set = SetSpec::decode(&body).expect("a set");
        // Its storage, and what only nft reads.
        set.other.clear();
        texts.push(format!("{set:?}"));
        texts.push(format!("{:?}", elements(transport, &set)));
    }
    texts
}

fn elements(transport: &mut impl Transport, set: &SetSpec) -> BTreeSet<String> {
    let names = [(NFTA_SET_ELEM_LIST_TABLE, &*set.table), (NFTA_SET_ELEM_LIST_SET, &*set.name)];
    let bodies = listed(transport, NFT_MSG_GETSETELEM, set.family, &names).expect("a dump");
    let lists = bodies.iter().map(|body| Elements::decode(body).expect("elements"));
    let texts = |list: Elements| {
        list.elements.iter().map(|element| format!("{element:?}")).collect::<Vec<_>>()
    };
    lists.flat_map(texts).collect()
}

/// Deletes all tables.
fn flush(transport: &mut impl Transport) {
    let mut batch = Batch::new(1, None);
    batch.push(NFT_MSG_DELTABLE, 0, |w| w.raw(&NfGenMsg::new(NFPROTO_UNSPEC).to_bytes()));
    let acks = exchange(transport, &batch.finish().expect("short")).expect("flushed");
    assert!(acks.iter().all(|ack| ack.errno.is_none()), "{acks:?}");
}

/// Sends the list of this seed to both; the difference.
fn difference(seed: u64, real: &mut impl Transport) -> Option<String> {
    let mut random = Random::new(seed);
    let kernel = Kernel::new();
    let mut fake = kernel.socket();
    flush(real);
    let mut sent = String::new();
    for number in 0..2 + random.below(8) {
        let list = if number == 0 && random.chance(800) { lists::foundation } else { lists::batch };
        let datagram = list(&mut random, 100).expect("short");
        let answers = |acks: Result<Vec<_>, NetlinkError>| {
            acks.expect("answers")
                .into_iter()
                .map(|ack: ephport_nft::netlink::Ack| format!("{ack:?}"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        sent += &described(&datagram);
        let (found, expected) = (exchange(&mut fake, &datagram), exchange(real, &datagram));
        let (found, expected) = (answers(found), answers(expected));
        if found != expected {
            return Some(format!(
                "batch {number}: the kernel\n{expected}\nthe fake\n{found}\nsent\n{sent}"
            ));
        }
    }
    let (found, expected) = (objects(&mut fake), objects(real));
    let only = |one: &[String], other: &[String]| {
        let lines = one.iter().filter(|line| !other.contains(line)).cloned();
        lines.collect::<Vec<_>>().join("\n")
    };
    (found != expected).then(|| {
        format!(
            "only the kernel has\n{}\nonly the fake has\n{}\nsent\n{sent}",
            only(&expected, &found),
            only(&found, &expected)
        )
    })
}

/// The messages of a batch.
fn described(datagram: &[u8]) -> String {
    let messages =
        ephport_nft::netlink::Messages::new(datagram).map(|message| message.expect("a message"));
    let text = |message: ephport_nft::netlink::Message<'_>| {
        let (header, body) = (message.header, message.body);
        let what = match header.nf_tables_message() {
            Some(0 | 2) => format!("{:?}", Table::decode(body)),
            Some(3 | 5) => format!("{:?}", Chain::decode(body)),
            Some(6 | 8) => format!("{:?}", Rule::decode(body)),
            Some(9 | 11) => format!("{:?}", SetSpec::decode(body)),
            Some(12 | 14) => format!("{:?}", Elements::decode(body)),
            _ => format!("{body:02x?}"),
        };
        format!("{} type {:#x} flags {:#x}: {what}", header.seq, header.message_type, header.flags)
    };
    messages.map(|message| text(message) + "\n").collect()
}

#[test]
fn fake_kernel_answers_as_the_real_one() {
    let number =
        |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let long = if env::var_os("EPHPORT_LONG").is_some() { 10 } else { 1 };
    let first = number("EPHPORT_SEED");
    let seeds = first.map_or(number("EPHPORT_SEEDS").unwrap_or(LISTS * long), |seed| seed + 1);
    let next = AtomicU64::new(first.unwrap_or(0));
    let differences = Mutex::new(Vec::new());
    let run = |host: &Host| {
        let mut real = host.run(Socket::netfilter).expect("a socket");
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            let found = difference(seed, &mut real);
            if let Some(difference) = found {
                let mut differences = differences.lock().expect("no panic");
                differences.push(format!("EPHPORT_SEED={seed}: {difference}"));
                // More of them say no more.
                if differences.len() == 5 {
                    break;
                }
            }
        }
    };
    // A commit that deletes waits for other processors, and so do many at once.
    let hosts = [(); HOSTS].map(|()| Host::new("host").expect("a host"));
    std::thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(|| run(host));
        }
    });
    let differences = differences.into_inner().expect("no panic");
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}
