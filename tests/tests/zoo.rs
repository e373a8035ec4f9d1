//! Every command beside foreign tables: all families and objects, names that are not UTF-8, owned tables, and
//! rulesets in the shape of those that common programs load.

use std::time::Duration;

use ephport_cli::Exit;
use ephport_nft::client::{Event, Events};
use ephport_nft::netlink::{Header, NfGenMsg, Socket, Writer, exchange};
use ephport_nft::table::layout::TableId;
use ephport_nft::uapi::{
    NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWTABLE, NFT_TABLE_F_OWNER, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_TABLE_NAME,
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST,
};
use ephport_nft::{Applied, Client};
use ephport_tests::tool::{is_complete_kernel, tool};
use ephport_tests::{Host, apply, compiled, ephport};

const POLICY: &str =
    "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nto-ports = \"49152-61000\"\n";
const FLAGS: &str = "--to-ports 49152-61000 -o any";
const OTHER_FLAGS: &str = "--to-ports 1024-2047,4096-5119 -o any --enforce";

/// Foreign tables: what they are, and a ruleset for nft.
const EXHIBITS: [(&str, &str); 14] = [
    (
        "an inet table with an ingress chain",
        "table inet zoo {\n chain in { type filter hook ingress device \"lo\" priority -500; }\n}",
    ),
    (
        "netdev chains, ingress and egress",
        "table netdev zoo {\n chain in { type filter hook ingress device \"lo\" priority 0; }\n\
         chain out { type filter hook egress device \"lo\" priority 0; }\n}",
    ),
    (
        "a flowtable and an offloaded flow",
        "table inet zoo {\n flowtable fast { hook ingress priority 0; devices = { lo }; }\n\
         chain forward { type filter hook forward priority 0; ip protocol tcp flow add @fast; }\n}",
    ),
    (
        "synproxy, as an object and as a statement",
        "table inet zoo {\n synproxy shield { mss 1460; wscale 7; timestamp sack-perm; }\n\
         chain input { type filter hook input priority 0; tcp dport 8080 synproxy name \"shield\"\n\
         tcp dport 8443 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm; }\n}",
    ),
    (
        "named objects of every kind that nft declares",
        "table inet zoo {\n counter seen { packets 7 bytes 700 }\n quota cap { over 10 mbytes }\n\
         limit slow { rate 5/second }\n ct helper ftp-std { type \"ftp\" protocol tcp; }\n\
         ct timeout short { protocol udp; l3proto ip; policy = { unreplied : 2, replied : 2 }; }\n\
         ct expectation later { protocol tcp; dport 9876; timeout 2m; size 12; l3proto ip; }\n\
         chain input { type filter hook input priority 0; counter name \"seen\"; quota name \"cap\" drop; }\n}",
    ),
    (
        "sets with timeouts, expressions, concatenations and ranges",
        "table inet zoo {\n\
         set clients { typeof ip saddr; flags dynamic,timeout; timeout 1h; size 128; }\n\
         set counted { type ipv4_addr; counter; elements = { 10.0.0.1, 10.0.0.2 }; }\n\
         set ranges { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/24 . 80-90 }; }\n\
         map where { type ipv4_addr : ipv4_addr . inet_service; elements = { 10.0.0.1 : 10.0.0.2 . 80 }; }\n\
         map rest { type inet_service : verdict; elements = { 22 : accept, * : drop }; }\n\
         chain input { type filter hook input priority 0;\n\
         tcp flags syn add @clients { ip saddr limit rate 10/second } accept; }\n}",
    ),
    (
        "tables of all families with the name of ephport's",
        "table ip ephport {\n comment \"mine\"\n chain postrouting { type nat hook postrouting priority 90; }\n}\n\
         table ip6 ephport {\n chain c { counter; }\n}\ntable arp ephport {\n chain c { counter; }\n}\n\
         table bridge ephport {\n chain c { counter; }\n}\ntable netdev ephport {\n chain c { counter; }\n}",
    ),
    (
        "odd names and comments",
        "table inet ephport2 {\n chain postrouting { counter; }\n}\ntable inet ephpor {\n}\n\
         table inet a_very/long.name_0123456789012345678901234567890123456789012345678901234567890123456789 {\n\
         comment \"ephport-nft\"\n chain ephport { counter comment \"ephport-nft 0.1.0 00\"; }\n}",
    ),
    (
        "a dormant table",
        "table inet zoo {\n flags dormant\n comment \"asleep\"\n\
         chain postrouting { type nat hook postrouting priority 90; oifname \"eth0\" masquerade; }\n}",
    ),
    (
        "the shape of Docker's rules: nat, published ports, isolation",
        "table ip nat {\n chain DOCKER { iifname \"docker0\" counter return\n\
         iifname != \"docker0\" meta l4proto tcp tcp dport 8080 counter dnat to 172.17.0.2:80; }\n\
         chain POSTROUTING { type nat hook postrouting priority 100; policy accept;\n\
         oifname != \"docker0\" ip saddr 172.17.0.0/16 counter masquerade; }\n\
         chain PREROUTING { type nat hook prerouting priority -100; fib daddr type local counter jump DOCKER; }\n}\n\
         table ip filter {\n chain ISOLATE { oifname \"docker0\" counter drop; }\n\
         chain FORWARD { type filter hook forward priority 0; policy drop; counter jump ISOLATE\n\
         oifname \"docker0\" ct state related,established counter accept; }\n}",
    ),
    (
        "the shape of libvirt's network: guest DHCP, masquerade to high ports",
        "table ip guests {\n chain input { type filter hook input priority filter;\n\
         iifname \"virbr0\" udp dport { 53, 67 } counter accept; }\n\
         chain nat { type nat hook postrouting priority srcnat;\n\
         ip saddr 192.168.122.0/24 ip daddr { 224.0.0.0/24, 255.255.255.255 } counter return\n\
         meta l4proto tcp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535\n\
         meta l4proto udp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535; }\n}",
    ),
    (
        "the shape of firewalld: one table, a dispatch to zones",
        "table inet firewalld {\n chain mangle_pre { type filter hook prerouting priority mangle + 10;\n\
         meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }\n\
         chain nat_post { type nat hook postrouting priority srcnat + 10; jump post_zones; }\n\
         chain post_zones { iifname \"eth0\" goto post_public; goto post_external; }\n\
         chain post_public { jump post_public_allow; }\n chain post_public_allow { }\n\
         chain post_external { meta nfproto ipv4 oifname != \"lo\" masquerade; }\n\
         chain input { type filter hook input priority filter + 10; policy accept;\n\
         ct state { established, related } accept; ct status dnat accept; iifname \"lo\" accept;\n\
         ct state { invalid } drop; reject with icmpx admin-prohibited; }\n}",
    ),
    (
        "the shape of kube-proxy: maps of services and endpoints",
        "table ip kube-proxy {\n comment \"rules for services\"\n\
         set cluster-ips { type ipv4_addr; comment \"active\"; elements = { 10.96.0.1 }; }\n\
         map service-ips { type ipv4_addr . inet_proto . inet_service : verdict;\n\
         elements = { 10.96.0.1 . tcp . 443 : goto service-api }; }\n\
         set affinity { type ipv4_addr; flags dynamic,timeout; timeout 3h; }\n\
         chain service-api { ip saddr != 10.244.0.0/16 ip daddr 10.96.0.1 tcp dport 443 jump mark-for-masquerade\n\
         numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b }; }\n\
         chain endpoint-a { update @affinity { ip saddr }; meta l4proto tcp dnat to 10.0.0.5:6443; }\n\
         chain endpoint-b { meta l4proto tcp dnat to 10.0.0.6:6443; }\n\
         chain mark-for-masquerade { meta mark set meta mark or 0x4000; }\n\
         chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark xor 0x4000\n\
         masquerade fully-random; }\n\
         chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }\n\
         chain nat-output { type nat hook output priority -100;\n\
         ip daddr . meta l4proto . th dport vmap @service-ips; }\n}",
    ),
    (
        "the shape of systemd-networkd: masquerade and DNAT from sets",
        "table ip io.systemd.nat {\n set masq_saddr { type ipv4_addr; flags interval; elements = { 10.1.0.0/16 }; }\n\
         map map_port_ipport { type inet_proto . inet_service : ipv4_addr . inet_service;\n\
         elements = { tcp . 8080 : 10.1.0.2 . 80 }; }\n\
         chain prerouting { type nat hook prerouting priority dstnat + 1; policy accept;\n\
         fib daddr type local dnat ip to meta l4proto . th dport map @map_port_ipport; }\n\
         chain postrouting { type nat hook postrouting priority srcnat + 1; policy accept;\n\
         ip saddr @masq_saddr masquerade; }\n}",
    ),
];

/// Adds a table with a chain, both with names that are not UTF-8, which nft cannot write.
fn add_table_without_utf8(host: &Host, family: u8) {
    let mut w = Writer::new();
    let batch = |w: &mut Writer, message_type, seq| {
        w.message(Header { message_type, flags: NLM_F_REQUEST, seq }, |w| {
            w.raw(&NfGenMsg { family: 0, resource: NFNL_SUBSYS_NFTABLES }.to_bytes());
        });
    };
    batch(&mut w, NFNL_MSG_BATCH_BEGIN, 1);
    w.message(Header::nf_tables(NFT_MSG_NEWTABLE, NLM_F_REQUEST | NLM_F_CREATE, 2), |w| {
        w.raw(&NfGenMsg::new(family).to_bytes());
        w.bytes(NFTA_TABLE_NAME, b"ephport\xff\xfe\0");
    });
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
    w.message(Header::nf_tables(NFT_MSG_NEWCHAIN, flags, 3), |w| {
        w.raw(&NfGenMsg::new(family).to_bytes());
        w.bytes(NFTA_CHAIN_TABLE, b"ephport\xff\xfe\0");
        w.bytes(NFTA_CHAIN_NAME, b"\x80chain\x1b\0");
    });
    batch(&mut w, NFNL_MSG_BATCH_END, 4);
    let mut socket = host.run(Socket::netfilter).unwrap();
    let answers = exchange(&mut socket, &w.finish().unwrap()).unwrap();
    assert!(answers.iter().all(|ack| ack.errno.is_none()), "{answers:?}");
}

/// nft's listing without ephport's table.
fn others(host: &Host) -> String {
    let listing = tool(host, "nft", &["-a", "list", "ruleset"], "").out;
    let mut is_ours = false;
    let theirs = listing.split_inclusive('\n').filter(|line| {
        is_ours |= line.starts_with("table inet ephport {");
        let was_ours = is_ours;
        is_ours &= *line != "}\n";
        !was_ours
    });
    theirs.collect()
}

/// Runs every command, and watches, beside the foreign tables of `host`, which stay as they are.
fn every_command_works(host: &Host, exhibit: &str) {
    let before = others(host);
    assert!(before.lines().count() > 1, "{exhibit}: {before}");
    let mut events = host.run(Events::open).unwrap();
    let run = |line: &str, exit: Exit| {
        let ended = ephport(host, line);
        assert_eq!(ended.exit, exit, "{exhibit}: {line}: {} {}", ended.out, ended.err);
        assert_eq!(others(host), before, "{exhibit}: {line}");
    };
    run("status", Exit::Differs);
    run(&format!("apply {FLAGS} --dry-run"), Exit::Success);
    run(&format!("apply {FLAGS}"), Exit::Success);
    run("status", Exit::Success);
    run(&format!("diff {FLAGS}"), Exit::Success);
    run(&format!("diff {OTHER_FLAGS}"), Exit::Differs);
    run(&format!("apply {OTHER_FLAGS}"), Exit::Success);
    run("status --json", Exit::Success);
    assert_eq!(apply(host, &compiled(POLICY)), Applied::Updated, "{exhibit}");
    run("remove", Exit::Success);
    let read: Vec<_> = std::iter::from_fn(|| events.next_within(Duration::ZERO)).collect();
    let commits = read.iter().filter(|event| matches!(event, Ok(Event::Generation(_)))).count();
    // The first enforcement is two: docs/guarantee.md.
    assert_eq!(commits, 5, "{exhibit}");
    let is_ours = |event: &Result<Event, _>| {
        !matches!(event, Ok(Event::OtherTable { .. } | Event::Opaque { .. }) | Err(_))
    };
    assert!(read.iter().all(is_ours), "{exhibit}: {read:?}");
}

#[test]
fn every_command_works_beside_foreign_tables() {
    let mut skipped = Vec::new();
    let together = Host::new("together").unwrap();
    for (exhibit, ruleset) in EXHIBITS {
        let host = Host::new("host").unwrap();
        let loaded = tool(&host, "nft", &["-f", "-"], ruleset);
        if !loaded.success {
            println!("skipped: {exhibit}: {}", loaded.err.lines().next().unwrap_or_default());
            skipped.push(exhibit);
            continue;
        }
        every_command_works(&host, exhibit);
        // Of some that have the same name the first remains.
        let _ = tool(&together, "nft", &["-f", "-"], ruleset);
    }
    // Kernels without flowtables (CONFIG_NF_FLOW_TABLE) exist, and Linux 5.10 has neither egress chains nor
    // elements for all other keys.
    assert!(skipped.len() <= 2, "{skipped:?}");
    let has_all = !skipped.iter().any(|exhibit| exhibit.contains("flowtable"));
    assert!(has_all || !is_complete_kernel(), "{skipped:?}");
    add_table_without_utf8(&together, 1);
    add_table_without_utf8(&together, 2);
    every_command_works(&together, "all together");
}

#[test]
fn an_owned_foreign_table_is_no_obstacle() {
    let host = Host::new("host").unwrap();
    let mut owner = host.run(Client::open).unwrap();
    let id = TableId::new("owned", "another program").unwrap();
    let mut state = compiled(POLICY).in_table(&id).unwrap();
    state.table.flags = Some(NFT_TABLE_F_OWNER);
    owner = owner.for_table(id);
    assert_eq!(owner.apply(&state), Ok(Applied::Installed));
    every_command_works(&host, "a table with the flag owner");
    assert_eq!(owner.remove(), Ok(true));
}

#[test]
fn two_owners_keep_separate_tables() {
    let host = Host::new("host").unwrap();
    let id = TableId::new("nodes", "node agent").unwrap().with_priority(95).unwrap();
    let agent = compiled(POLICY).in_table(&id).unwrap();
    let mut client = host.run(Client::open).unwrap().for_table(id);
    assert_eq!(client.apply(&agent), Ok(Applied::Installed));
    every_command_works(&host, "the table of a node agent");
    assert_eq!(client.apply(&agent), Ok(Applied::Unchanged));
    assert_eq!(client.remove(), Ok(true));
}

/// The objects that another process can add inside ephport's own table.
#[test]
fn objects_added_to_our_table_are_drift() {
    let additions = [
        "counter inet ephport seen",
        "quota inet ephport cap over 10 mbytes",
        "limit inet ephport slow rate 5/second",
        "ct timeout inet ephport short { protocol udp; l3proto ip; policy = { unreplied : 2, replied : 2 }; }",
        "flowtable inet ephport fast { hook ingress priority 0; devices = { lo }; }",
        "set inet ephport extra { type ipv4_addr; flags timeout; }",
        "chain inet ephport in { type filter hook ingress device lo priority 0; }",
        "rule inet ephport postrouting limit rate 5/second accept",
    ];
    let mut tried = 0;
    for addition in additions {
        let host = Host::new("host").unwrap();
        assert_eq!(ephport(&host, &format!("apply {FLAGS}")).exit, Exit::Success);
        if !tool(&host, "nft", &["add", addition], "").success {
            println!("skipped: {addition}");
            continue;
        }
        tried += 1;
        let status = ephport(&host, "status");
        assert_eq!(status.exit, Exit::Differs, "{addition}: {}", status.out);
        assert!(status.out.contains("drifted"), "{addition}: {}", status.out);
        assert_eq!(ephport(&host, &format!("diff {FLAGS}")).exit, Exit::Differs, "{addition}");
        assert_eq!(ephport(&host, &format!("apply {FLAGS}")).exit, Exit::Success, "{addition}");
        assert_eq!(ephport(&host, "status").exit, Exit::Success, "{addition}");
    }
    assert!(tried == additions.len() || tried >= 6 && !is_complete_kernel(), "{tried}");
}

/// A chain whose name is not UTF-8, in ephport's own table.
#[test]
fn a_chain_without_utf8_in_our_table_is_drift() {
    let host = Host::new("host").unwrap();
    assert_eq!(ephport(&host, &format!("apply {FLAGS}")).exit, Exit::Success);
    let mut w = Writer::new();
    let fixed = NfGenMsg { family: 0, resource: NFNL_SUBSYS_NFTABLES }.to_bytes();
    let batch = |message_type, seq| Header { message_type, flags: NLM_F_REQUEST, seq };
    w.message(batch(NFNL_MSG_BATCH_BEGIN, 1), |w| w.raw(&fixed));
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
    w.message(Header::nf_tables(NFT_MSG_NEWCHAIN, flags, 2), |w| {
        w.raw(&NfGenMsg::new(1).to_bytes());
        w.string(NFTA_CHAIN_TABLE, "ephport");
        w.bytes(NFTA_CHAIN_NAME, b"\xffodd\0");
    });
    w.message(batch(NFNL_MSG_BATCH_END, 3), |w| w.raw(&fixed));
    let mut socket = host.run(Socket::netfilter).unwrap();
    let answers = exchange(&mut socket, &w.finish().unwrap()).unwrap();
    assert!(answers.iter().all(|ack| ack.errno.is_none()), "{answers:?}");
    let status = ephport(&host, "status");
    assert_eq!(status.exit, Exit::Differs);
    assert!(status.out.contains("chain \\xffodd"), "{}", status.out);
    assert_eq!(ephport(&host, &format!("apply {FLAGS}")).exit, Exit::Success);
    assert_eq!(ephport(&host, "status").exit, Exit::Success);
}
