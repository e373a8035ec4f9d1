//! The situations that fool a netlink client (`docs/client.md`), with the kernel that runs this test.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;

use ephport_nft::client::Rejection;
use ephport_nft::netlink::Messages;
use ephport_nft::netlink::{NetlinkError, Socket, Transport};
use ephport_nft::nftables::expr::{Masq, Opaque, Register};
use ephport_nft::nftables::{Chain, Hook, Rule};
use ephport_nft::uapi::NFNL_MSG_BATCH_BEGIN;
use ephport_nft::{Applied, Client, Error, Installed, TableState};
use ephport_tests::tool::binary;
use ephport_tests::{Host, PolicyFile, apply, compiled, installed};
use nix::errno::Errno;
use nix::sys::socket::sockopt::SndBuf;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, getsockopt, sendto,
    socket,
};

fn ruleset() -> TableState {
    ruleset_of("49152-61000")
}

fn ruleset_of(ports: &str) -> TableState {
    compiled(&format!(
        "[[policy]]\nname = \"p\"\nout-interfaces = \"any\"\nto-ports = \"{ports}\"\n"
    ))
}

/// A socket that loses the last bytes of each batch.
struct Cutting {
    socket: Socket,
    bytes: usize,
}

impl Transport for Cutting {
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let first = Messages::new(datagram).next().expect("a message").expect("whole");
        let is_batch = first.header.message_type == NFNL_MSG_BATCH_BEGIN;
        let len = datagram.len() - if is_batch { self.bytes } else { 0 };
        self.socket.send(&datagram[..len])
    }

    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.socket.poll()
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        self.socket.receive()
    }
}

#[test]
fn missing_or_cut_batch_end_is_dropped() {
    let host = Host::new("host").unwrap();
    let length = 20;
    for bytes in 1..=length {
        let socket = host.run(Socket::netfilter).unwrap();
        let applied = Client::with_transport(Cutting { socket, bytes }).apply(&ruleset());
        assert_eq!(applied, Err(Error::Dropped), "{bytes}");
        assert_eq!(installed(&host), Installed::Absent, "{bytes}");
    }
}

/// The rejection of a table with one change, after which the kernel has no table.
fn refusal(change: impl FnOnce(&mut TableState)) -> Rejection {
    let host = Host::new("host").unwrap();
    let mut wrong = ruleset();
    change(&mut wrong);
    let result = host.run(|| Client::open()?.apply(&wrong));
    assert_eq!(installed(&host), Installed::Absent);
    match result {
        Err(Error::Rejected(refusal)) => *refusal,
        other => panic!("{other:?}"),
    }
}

/// What is wrong, how, and what the kernel refused.
type Case = (&'static str, fn(&mut TableState), &'static str);

fn each_is_refused(cases: &[Case]) {
    for (name, change, expected) in cases {
        let refusal = refusal(change);
        assert_eq!(refusal.to_string(), format!("the kernel refused to {expected}"), "{name}");
    }
}

/// The rule with this number, from 1, of the policy; guards of all policies precede them.
fn policy_rule(ruleset: &mut TableState, number: usize) -> &mut Rule {
    let mut rules = ruleset.rules.iter_mut().filter(|rule| rule.counter().is_some());
    rules.nth(number - 1).expect("a rule of the policy")
}

#[test]
fn rejected_message_is_named_with_its_location() {
    let cases: [Case; 5] = [
        (
            "an expression that there is not",
            |r| policy_rule(r, 2).exprs.insert(1, Opaque::new("nosuch".into(), None).into()),
            "add rule 2 of policy p to chain postrouting (ENOENT: No such file or directory), \
             at expression 2, nosuch",
        ),
        (
            "a register that there is not",
            |r| {
                let masq = Masq { flags: Some(2), proto_min: Some(Register(99)), proto_max: None };
                policy_rule(r, 1).exprs.insert(0, masq.into());
            },
            "add rule 1 of policy p to chain postrouting (ERANGE: Math result not representable), \
             at expression 1, masq",
        ),
        (
            "a chain that there is not",
            |r| r.rules[0].chain = "nosuch".into(),
            "add rule 1 to chain nosuch (ENOENT: No such file or directory), \
             at attribute NFTA_RULE_CHAIN",
        ),
        (
            "a hook for nat before conntrack's",
            |r| r.chains[0].hook = Some(Hook::new(4, -300)),
            "add chain postrouting (EOPNOTSUPP: Operation not supported on transport endpoint): \
             this kernel does not support it; expected Linux 5.10 or later with all of CONFIG_NFT_*",
        ),
        (
            "a chain twice, of another kind",
            |r| {
                let filter = Chain { chain_type: Some("filter".into()), ..r.chains[0].clone() };
                r.chains.push(filter);
            },
            "add chain postrouting (EEXIST: File exists), at attribute NFTA_CHAIN_NAME: \
             an object with this name and another type exists",
        ),
    ];
    each_is_refused(&cases);
}

/// Linux 5.10 to 6.12 do not always report the place.
#[test]
fn rejected_attribute_of_table_or_chain_is_named() {
    let cases: [Case; 2] = [
        (
            "a type of chain that there is not",
            |r| r.chains[0].chain_type = Some("nosuch".into()),
            "add chain postrouting (ENOENT: No such file or directory), \
             at attribute NFTA_CHAIN_TYPE",
        ),
        (
            "a comment that is too long",
            |r| r.table.userdata = Some(vec![0; 300]),
            "add table ephport (ERANGE: Math result not representable), \
             at attribute NFTA_TABLE_USERDATA: Attribute failed policy validation",
        ),
    ];
    each_is_refused(&cases);
}

#[test]
fn send_buffer_grows_for_large_datagrams() {
    let host = Host::new("host").unwrap();
    // The kernel's own limit. Zeros are a message of no length, which it ignores.
    let protocol = SockProtocol::NetlinkNetFilter;
    let raw = host.run(|| {
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap()
    });
    let room = getsockopt(&raw, SndBuf).unwrap() - 32;
    let kernel = NetlinkAddr::new(0, 0);
    let send = |len| sendto(raw.as_raw_fd(), &vec![0; len], &kernel, MsgFlags::empty());
    assert_eq!((send(room), send(room + 1)), (Ok(room), Err(Errno::EMSGSIZE)));
    // Ours makes itself room.
    let mut socket = host.run(Socket::netfilter).unwrap();
    for len in [room, room + 1, room + 1000] {
        assert_eq!(socket.send(&vec![0; len]), Ok(()), "{len}");
    }
}

/// Applies a block to each of 2^`bits` sources in a user namespace of its own, where the send buffer
/// cannot be forced: exit code, standard error, and the kernel's count of elements.
fn apply_in_user_namespace(bits: u32) -> (Option<i32>, String, usize) {
    let prefix = 32 - bits;
    let policy = PolicyFile::new(&format!(
        "[[policy]]\nname = \"p\"\nout-interfaces = \"any\"\n\
         blocks = \"10.0.0.0/{prefix}=16@172.16.0.0/16:1024-65535\"\n"
    ));
    let output = Command::new("unshare")
        .args(["-Urn", "sh", "-c"])
        .arg("\"$0\" apply \"$1\" >/dev/null; code=$?; nft list ruleset; exit $code")
        .arg(binary())
        .arg(policy.path())
        .output()
        .expect("unshare, of util-linux");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let elements = text(&output.stdout).matches(" : 172.16.").count();
    (output.status.code(), text(&output.stderr), elements)
}

#[test]
fn unforced_send_buffer_fits_or_names_the_sysctl() {
    const BYTES_PER_BLOCK: usize = 48;
    let max = fs::read_to_string("/proc/sys/net/core/wmem_max").expect("a setting");
    let room = 2 * max.trim().parse::<usize>().expect("a number") - 32;
    // 2 % for the headers of the messages that the blocks are in.
    let fits = |bits: &u32| (BYTES_PER_BLOCK << bits) + (BYTES_PER_BLOCK << bits) / 50 < room;
    let bits = (1..24).rev().find(fits).expect("some that fit");
    let (code, err, elements) = apply_in_user_namespace(bits);
    assert_eq!((code, err.as_str(), elements), (Some(0), "", 1 << bits));

    let (code, err, elements) = apply_in_user_namespace(bits + 1);
    assert_eq!((code, elements), (Some(1), 0), "{err}");
    let len: usize = err.split(' ').find_map(|word| word.parse().ok()).expect("a length");
    assert!(len > room, "{err}");
    assert_eq!(
        err,
        format!(
            "error: a transaction of {len} bytes does not fit in the socket's send buffer of {room}: it \
             requires net.core.wmem_max of at least {}, or CAP_NET_ADMIN in the initial user \
             namespace\n",
            (len + 32).div_ceil(2)
        )
    );
}

#[test]
fn chain_with_another_priority_or_type_is_replaced() {
    let priority = |chain: &mut Chain| chain.hook = Some(Hook::new(4, 80));
    let kind = |chain: &mut Chain| chain.chain_type = Some("filter".into());
    let changes: [&dyn Fn(&mut Chain); 2] = [&priority, &kind];
    for change in changes {
        let host = Host::new("host").unwrap();
        let mut other = ruleset();
        change(&mut other.chains[0]);
        other.rules.clear();
        apply(&host, &other);
        assert_eq!(apply(&host, &ruleset()), Applied::Replaced);
        assert!(matches!(installed(&host), Installed::Ours { intact: true, .. }));
    }
}

#[test]
fn table_with_flag_owner_is_owned() {
    let host = Host::new("host").unwrap();
    let mut resident = host.run(|| Client::open()?.owning()).unwrap();
    assert!(resident.is_owner(), "this kernel has the flag persist");
    assert_eq!(resident.apply(&ruleset()), Ok(Applied::Installed));
    let mut other = host.run(Client::open).unwrap();
    // What changes nothing is permitted.
    assert_eq!(other.apply(&ruleset()), Ok(Applied::Unchanged));
    let owned =
        Error::Owned { table: "ephport".into(), port_id: Some(resident.port_id().unwrap()) };
    assert_eq!(other.apply(&ruleset_of("2000-2999")), Err(owned.clone()));
    assert_eq!(other.remove(), Err(owned));
    assert_eq!(resident.remove(), Ok(true));
    assert_eq!(other.apply(&ruleset()), Ok(Applied::Installed));
}
