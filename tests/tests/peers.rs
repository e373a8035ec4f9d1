//! What the test suites of our peers ask of a masquerade to ports, in our own words: those of nftables
//! (tests/py, masquerade and snat), google/nftables (`TestMasq`) and the kernel (`nft_nat.sh`).
//!
//! Those of iptables (`libipt_MASQUERADE.t`, `libip6t_MASQUERADE.t`, `libipt_SNAT.t`, `libip6t_SNAT.t`)
//! are in ephport-core, at `import/iptables/tests.rs`; the bytes of 548 ranges and flags are in `bytes`.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ephport_cli::Exit;
use ephport_nft::Client;
use ephport_nft::netlink::Writer;
use ephport_nft::nftables::expr::Expr;
use ephport_nft::nftables::{Hook, Rule};
use ephport_nft::uapi::{
    NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING, NF_NAT_RANGE_PROTO_SPECIFIED,
    NFPROTO_INET,
};
use ephport_tests::tool::{nft_load, tool};
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, CommandOutput, Host, PolicyFile, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4,
    Server, compiled, ephport, ephport_ok, of_family, protocols_and_servers, seen,
};

/// A statement of nft, the instructions that its suite expects, and the flags that mean the same to us.
type Statement = (&'static str, &'static [&'static str], Option<&'static str>);

const STATEMENTS: [Statement; 19] = [
    // ip/masquerade.t and ip6/masquerade.t
    ("masquerade", &["masq"], None),
    ("masquerade random", &["masq flags 0x4"], None),
    ("masquerade persistent", &["masq flags 0x8"], None),
    ("masquerade fully-random", &["masq flags 0x10"], None),
    ("masquerade random,persistent", &["masq flags 0xc"], None),
    ("masquerade random,fully-random", &["masq flags 0x14"], None),
    ("masquerade persistent,fully-random", &["masq flags 0x18"], None),
    ("masquerade random,fully-random,persistent", &["masq flags 0x1c"], None),
    (
        "masquerade to :1024",
        &["immediate reg 1 0x00000004", "masq proto_min reg 1 flags 0x2"],
        Some("--to-ports 1024 --address masquerade"),
    ),
    (
        "masquerade to :1024-2048",
        &[
            "immediate reg 1 0x00000004",
            "immediate reg 2 0x00000008",
            "masq proto_min reg 1 proto_max reg 2 flags 0x2",
        ],
        Some("--to-ports 1024-2048 --address masquerade"),
    ),
    (
        "masquerade to :1024-2048 random",
        &[
            "immediate reg 1 0x00000004",
            "immediate reg 2 0x00000008",
            "masq proto_min reg 1 proto_max reg 2 flags 0x6",
        ],
        Some("--to-ports 1024-2048 --address masquerade --random"),
    ),
    (
        "masquerade to :1024 fully-random,persistent",
        &["immediate reg 1 0x00000004", "masq proto_min reg 1 flags 0x1a"],
        Some("--to-ports 1024 --address masquerade --fully-random --persistent"),
    ),
    // inet/snat.t
    ("snat ip to 192.168.3.2", &["immediate reg 1 0x0203a8c0", "nat snat ip addr_min reg 1"], None),
    (
        "snat ip to 192.168.3.2-192.168.3.9",
        &[
            "immediate reg 1 0x0203a8c0",
            "immediate reg 2 0x0903a8c0",
            "nat snat ip addr_min reg 1 addr_max reg 2",
        ],
        None,
    ),
    (
        "snat ip to 192.168.3.2:1024-2048",
        &[
            "immediate reg 1 0x0203a8c0",
            "immediate reg 2 0x00000004",
            "immediate reg 3 0x00000008",
            "nat snat ip addr_min reg 1 proto_min reg 2 proto_max reg 3 flags 0x2",
        ],
        Some("--to-ports 1024-2048 --ipv4 --address 192.168.3.2"),
    ),
    (
        "snat ip to 192.168.3.2:1024-2048 random",
        &[
            "immediate reg 1 0x0203a8c0",
            "immediate reg 2 0x00000004",
            "immediate reg 3 0x00000008",
            "nat snat ip addr_min reg 1 proto_min reg 2 proto_max reg 3 flags 0x6",
        ],
        Some("--to-ports 1024-2048 --ipv4 --address 192.168.3.2 --random"),
    ),
    (
        "snat ip6 to [2001:838:35f:1::]:1024 persistent",
        &[
            "immediate reg 1 0x38080120 0x01005f03 0x00000000 0x00000000",
            "immediate reg 2 0x00000004",
            "nat snat ip6 addr_min reg 1 proto_min reg 2 flags 0xa",
        ],
        Some("--to-ports 1024 --ipv6 --address 2001:838:35f:1:: --persistent"),
    ),
    (
        "snat to :1024",
        &["immediate reg 1 0x00000004", "nat snat inet proto_min reg 1 flags 0x2"],
        Some("--to-ports 1024 --address keep"),
    ),
    (
        "snat to :1024-2048",
        &[
            "immediate reg 1 0x00000004",
            "immediate reg 2 0x00000008",
            "nat snat inet proto_min reg 1 proto_max reg 2 flags 0x2",
        ],
        Some("--to-ports 1024-2048 --address keep"),
    ),
];

/// The instructions on lines like `[ masq flags 0x4 ]`.
fn instructions(text: &str) -> Vec<&str> {
    // nft writes two spaces before flags that follow nothing else.
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("[ ")?.strip_suffix(" ]"))
        .map(str::trim)
        .collect()
}

/// What nft makes of one statement for TCP, after the match of the protocol: its own instructions,
/// and what is read back of them from the kernel.
fn judged(statement: &str) -> (String, Rule) {
    let host = Host::new("judge").unwrap();
    let text = format!(
        "table inet judge {{\n chain c {{\n type nat hook postrouting priority 90\n \
         meta l4proto tcp {statement}\n }}\n}}\n"
    );
    let printed = tool(&host, "nft", &["--debug=netlink", "-f", "-"], &text);
    assert!(printed.success && printed.err.is_empty(), "{statement}: {printed:?}");
    let table = host.run(|| Client::open().unwrap().read_table(NFPROTO_INET, "judge").unwrap().0);
    let [rule] = table.unwrap().rules.try_into().expect("one rule");
    (printed.out, rule)
}

/// Without the flag that the kernel sets itself where `nat` has ports.
fn normalized(instruction: &str) -> String {
    let (nat, flags) = instruction.split_once(" flags 0x").unwrap_or((instruction, ""));
    match u32::from_str_radix(flags, 16) {
        Ok(flags) if !nat.starts_with("nat ") => format!("{nat} flags {flags:#x}"),
        Ok(flags) if flags != NF_NAT_RANGE_PROTO_SPECIFIED => {
            format!("{nat} flags {:#x}", flags & !NF_NAT_RANGE_PROTO_SPECIFIED)
        }
        _ => nat.into(),
    }
}

#[test]
fn statements_of_nftables() {
    let host = Host::new("host").unwrap();
    for (statement, expected, flags) in STATEMENTS {
        let (printed, rule) = judged(statement);
        assert_eq!(instructions(&printed)[2..], *expected, "{statement}");
        let read = |expr: &Expr| format!("{}\n", expr.normalized());
        let read: String = rule.exprs[2..].iter().map(read).collect();
        let asked: Vec<_> = expected.iter().map(|line| normalized(line)).collect();
        assert_eq!(instructions(&read), asked, "{statement}");

        let Some(flags) = flags else { continue };
        let show = format!("show -p tcp -o eth0 {flags}");
        assert!(ephport_ok(&host, &show).contains(&format!(" {statement} comment")), "{statement}");
        let ours = ephport_ok(&host, &format!("{show} --format bytecode"));
        let (_, ours) = ours.split_once("[ counter pkts 0 bytes 0 ]").expect("a counter");
        assert_eq!(instructions(ours), expected, "{statement}");
    }
}

/// Built by hand: `NFTA_LIST_ELEM` with `NFTA_EXPR_NAME` `masq` and `NFTA_EXPR_DATA`, in it `NFTA_MASQ_FLAGS`,
/// `NFTA_MASQ_REG_PROTO_MIN` and `NFTA_MASQ_REG_PROTO_MAX`, in network order (linux/netfilter/nf_tables.h).
#[test]
fn byte_cases_of_google_nftables() {
    let head = |len: u8, data: u8| {
        [&[len, 0, 1, 0, 9, 0, 1, 0], b"masq\0\0\0\0".as_slice(), &[data, 0, 2, 0]].concat()
    };
    let flags = |bits: u8| [8, 0, 1, 0, 0, 0, 0, bits];
    let (min, max) = (|register| [8, 0, 2, 0, 0, 0, 0, register], [8, 0, 3, 0, 0, 0, 0, 2]);
    let cases = [
        ("random", [head(28, 12), flags(4).into()].concat()),
        ("fully-random,persistent", [head(28, 12), flags(24).into()].concat()),
        ("to :1024", [head(36, 20), flags(2).into(), min(1).into()].concat()),
        ("to :1024-2044", [head(44, 28), flags(2).into(), min(1).into(), max.into()].concat()),
    ];
    for (statement, golden) in cases {
        let (_, rule) = judged(&format!("masquerade {statement}"));
        let mut w = Writer::new();
        rule.exprs.last().expect("an expression").normalized().encode(&mut w);
        assert_eq!(w.finish().unwrap(), golden, "{statement}");
    }
}

#[test]
fn ports_that_all_peers_refuse() {
    let host = Host::new("host").unwrap();
    let cases = [
        ("65536", "port 65536 is too large: expected 1 to 65535"),
        ("-1", "`-1` is not a port: expected a number from 1 to 65535"),
        ("2048-1024", "range 2048-1024 is reversed: write 1024-2048"),
    ];
    for (ports, why) in cases {
        let CommandOutput { exit, err, .. } =
            ephport(&host, &format!("show -o eth0 --to-ports={ports}"));
        let invalid = format!("error: invalid value '{ports}' for '--to-ports <PORTS>': {why}\n");
        assert!(exit == Exit::Usage && err.starts_with(&invalid), "{err}");

        let toml = format!("[[policy]]\nname = \"a\"\nto-ports = \"{ports}\"\n");
        let file = PolicyFile::new(&toml);
        let CommandOutput { exit, err, .. } = ephport(&host, &format!("show {}", file.path()));
        let path = file.path();
        assert_eq!(err, format!("error: {path}:3:12: to-ports \"{ports}\": {why}\n"));
        assert_eq!(exit, Exit::Failure);

        let rule = "iptables -t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports";
        let CommandOutput { exit, err, .. } =
            ephport(&host, &format!("import iptables -- {rule} {ports}"));
        let skipped = format!("skipped: line 1: --to-ports `{ports}`: {why}: `{rule} {ports}`\n");
        assert!(exit == Exit::Failure && err.starts_with(&skipped), "{err}");
    }
}

/// The kernel translates sources in nat chains of postrouting and input only, and looks through jumps.
#[test]
fn masquerade_outside_postrouting_is_refused() {
    let direct = "[[policy]]\nname = \"a\"\nprotocols = [\"udp\"]\nout-interfaces = [\"eth0\"]\n\
                  to-ports = \"1024-2048\"\naddress = \"masquerade\"\n";
    // Its translations are in chains that the base chain leads to.
    let reached = direct.replace("1024-2048", "1024-2048,4096-5000");
    for (kind, number) in
        [("filter", NF_INET_POST_ROUTING), ("filter", NF_INET_FORWARD), ("nat", NF_INET_LOCAL_OUT)]
    {
        for (policy, chain) in [(direct, "postrouting"), (&reached, "a/ports")] {
            let host = Host::new("host").unwrap();
            let mut ruleset = compiled(policy);
            assert_eq!(ruleset.chains.iter().filter(|chain| chain.hook.is_some()).count(), 1);
            for chain in ruleset.chains.iter_mut().filter(|chain| chain.hook.is_some()) {
                chain.hook = Some(Hook::new(number, 90));
                chain.chain_type = Some(kind.into());
            }
            let error = host.run(|| Client::open().unwrap().apply(&ruleset)).unwrap_err();
            let refused = format!(
                "the kernel refused to add rule 1 of policy a to chain {chain} (EOPNOTSUPP: Operation \
                 not supported on transport endpoint): this kernel does not support it; \
                 expected Linux 5.10 or later with all of CONFIG_NFT_*"
            );
            assert_eq!(error.to_string(), refused, "{kind} {number}");
            let (left, _) =
                host.run(|| Client::open().unwrap().read_table(NFPROTO_INET, "ephport")).unwrap();
            assert_eq!(left, None);
        }
    }
}

/// `nft_nat.sh`, its masquerade: without, with each flag and again without, forwarded and local.
#[test]
fn masquerade_of_the_kernels_selftest() {
    const PORT: u16 = 443;
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let mut from = 30_000;
    let mut look = |is_masqueraded: bool, how: &str| {
        for (protocol, server) in protocols_and_servers() {
            let client = of_family(server, CLIENT_V4, CLIENT_V6);
            let router = of_family(server, ROUTER_V4, ROUTER_V6);
            for (host, own) in [(&net.client, client), (&net.router, router)] {
                from += 1;
                let seen = seen(host, protocol, from, SocketAddr::new(server, PORT));
                let untouched = SocketAddr::new(own, from);
                let is_moved = seen.ip() == router && (50_000..=59_999).contains(&seen.port());
                assert!(if is_masqueraded { is_moved } else { seen == untouched }, "{how}: {seen}");
            }
        }
    };
    look(false, "without");
    for flags in ["", "--random", "--fully-random", "--persistent", "--random --persistent"] {
        ephport_ok(
            &net.router,
            &format!("apply --to-ports 50000-59999 --address masquerade {flags}"),
        );
        look(true, flags);
    }
    ephport_ok(&net.router, "remove");
    look(false, "removed");
}

/// `nft_nat.sh`, its port shadow. A client of the router sends from the port of a service on
/// the router; who gets what the other end then sends to that port?
fn shadowed(install: impl FnOnce(&Host)) -> &'static str {
    const SERVICE: u16 = 1405;
    const PEER: u16 = 41_404;
    let net = Routed::new().unwrap();
    install(&net.router);
    let socket = |host: &Host, port: u16| {
        let socket = host.run(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        socket
    };
    let (client, service) = (socket(&net.client, SERVICE), socket(&net.router, SERVICE));
    let peer = socket(&net.server, PEER);
    let timeout = 2_000;
    client.send_to(b"client", (SERVER_V4, PEER)).unwrap();
    let opened = (0..timeout).find_map(|_| peer.recv_from(&mut [0; 16]).ok());
    assert_eq!(opened.expect("what the client sent").1.ip(), ROUTER_V4);
    peer.send_to(b"who is there?", (ROUTER_V4, SERVICE)).unwrap();
    let answer = (0..timeout).find_map(|_| {
        [(&service, "router"), (&client, "client")]
            .into_iter()
            .find_map(|(socket, name)| Some((socket, name, socket.recv_from(&mut [0; 16]).ok()?.1)))
    });
    let (socket, name, asked) = answer.expect("one of them is asked");
    socket.send_to(name.as_bytes(), asked).unwrap();
    let mut reply = [0; 16];
    let replied = (0..timeout).find_map(|_| peer.recv_from(&mut reply).ok());
    assert_eq!(replied, Some((name.len(), SocketAddr::new(ROUTER_V4, SERVICE))));
    name
}

#[test]
fn port_shadow_of_the_kernels_selftest() {
    let masquerade = |how: &'static str| {
        move |router: &Host| {
            nft_load(
                router,
                &format!(
                    "table ip t {{\n chain c {{\n type nat hook postrouting priority 100\n \
                     oifname \"wan0\" {how}\n }}\n}}\n"
                ),
            );
        }
    };
    assert_eq!(shadowed(masquerade("masquerade")), "client");
    assert_eq!(
        shadowed(masquerade("udp sport <= 1405 masquerade to :1406-65535 random")),
        "router"
    );
    assert_eq!(
        shadowed(|router| {
            let policy = "-p udp --sport 1-1405 --to-ports 1406-65535 --random";
            ephport_ok(router, &format!("apply {policy}"));
        }),
        "router"
    );
    // After our policy another tool's masquerade sees nothing of it any more.
    assert_eq!(
        shadowed(|router| {
            masquerade("masquerade")(router);
            let policy = "-p udp --sport 1-1405 --to-ports 1406-65535 --random";
            ephport_ok(router, &format!("apply {policy}"));
        }),
        "router"
    );
}
