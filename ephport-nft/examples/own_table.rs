//! Rules in the caller's own table, in the caller's own batch, sent on the caller's own socket.
//!
//! As root: `cargo run -p ephport-nft --example own_table -- eth0`

use std::error::Error;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use ephport_core::{HostFacts, InterfaceName, Policy, PortRange};
use ephport_nft::plan::Batch;
use ephport_nft::{Plan, TableId};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    socket,
};

// linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 10 << 8;
const NEWCHAIN: u16 = 10 << 8 | 3;
const NFPROTO_INET: u8 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let uplink: InterfaceName = std::env::args().nth(1).unwrap_or_else(|| "eth0".into()).parse()?;
    let sent = install(&HostFacts::with_uplinks([uplink]))?;
    println!("installed table inet mine with {sent} operations of ephport");
    Ok(())
}

/// Make the table `inet mine` with a chain of the caller's, and with ephport's rules. Returns the count of
/// ephport's operations.
pub(crate) fn install(facts: &HostFacts) -> Result<usize, Box<dyn Error>> {
    let range: PortRange = "49152-61000".parse()?;
    let policy = Policy::to(range).build()?;
    let id = TableId::new("mine", "my own program")?;
    let plan = Plan::new(&[policy], facts)?.in_table(&id)?;

    let operations = Batch::add(&plan.table);
    let mut datagram = message(BATCH_BEGIN, 0, 1, &[0, 0, 0, 10]);
    datagram.extend(message(NEWTABLE, NLM_F_CREATE, 2, &[family(), attribute(1, "mine")].concat()));
    // Single messages: they request no acknowledgement.
    datagram.extend(operations.messages(3)?.concat());
    let last = 3 + u32::try_from(operations.operations().len())?;
    let chain = [family(), attribute(1, "mine"), attribute(3, "my-chain")].concat();
    datagram.extend(message(NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, last, &chain));
    datagram.extend(message(BATCH_END, 0, last + 1, &[0, 0, 0, 10]));

    send(&open()?, &datagram)?;
    Ok(operations.operations().len())
}

/// The caller's netlink socket.
fn open() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(fd)
}

/// Send a batch, and wait for the answer to its last operation. The kernel queues all answers before it
/// returns from sendto(2); the first is that of the first operation that failed.
fn send(socket: &OwnedFd, datagram: &[u8]) -> io::Result<()> {
    sendto(socket.as_raw_fd(), datagram, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 8192];
    recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let [_, _, _, _, type0, type1, ..] = answer;
    let [code0, code1, code2, code3] = *answer[16..].first_chunk().unwrap_or(&[0; 4]);
    match (u16::from_ne_bytes([type0, type1]), i32::from_ne_bytes([code0, code1, code2, code3])) {
        (NLMSG_ERROR, 0) => Ok(()),
        (NLMSG_ERROR, code) => Err(io::Error::from_raw_os_error(-code)),
        (other, _) => Err(io::Error::other(format!("netlink message of type {other}"))),
    }
}

/// The body of `struct nfgenmsg`.
fn family() -> Vec<u8> {
    vec![NFPROTO_INET, 0, 0, 0]
}

fn attribute(kind: u16, text: &str) -> Vec<u8> {
    let len = u16::try_from(4 + text.len() + 1).unwrap_or(u16::MAX);
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}
