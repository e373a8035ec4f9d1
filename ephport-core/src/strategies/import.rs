//! Strategies for what is imported.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::import::nacl::{Action, Entry, NetworkAcl, Traffic};
use crate::strategies::port_ranges;

/// An ACL of a few entries in and around `10.0.0.8/29` and `2001:db8::8/125`; half of them let in at
/// the end what is not denied before.
pub fn network_acls() -> impl Strategy<Value = NetworkAcl> {
    (vec(entries(), 0..6), any::<bool>()).prop_map(|(mut entries, lets_in)| {
        let all =
            |remote| Entry { number: 32_766, remote, traffic: Traffic::All, action: Action::Allow };
        if lets_in {
            entries.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].map(all));
        }
        NetworkAcl::new("acl-1", entries)
    })
}

fn entries() -> impl Strategy<Value = Entry> {
    let action = prop::sample::select(vec![Action::Allow, Action::Deny]);
    (1..32_766u32, networks(), traffic(), action)
        .prop_map(|(number, remote, traffic, action)| Entry { number, remote, traffic, action })
}

fn networks() -> impl Strategy<Value = IpNet> {
    // Wide networks come as often as narrow ones, so that some ports are open to all.
    let host_bits = prop_oneof![1 => Just(32u8), 3 => 0..=3u8];
    (any::<bool>(), 6..18u8, host_bits).prop_map(|(is_v4, last, host_bits)| {
        if is_v4 {
            Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, last), 32 - host_bits).trunc().into()
        } else {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into());
            Ipv6Net::new_assert(address, 128 - host_bits).trunc().into()
        }
    })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let number = prop::sample::select(vec![1u8, 6, 6, 6, 17, 17]);
    let of_ports = (number, port_ranges())
        .prop_map(|(number, range)| Traffic::Protocol { number, ports: range.into() });
    prop_oneof![3 => Just(Traffic::All), 6 => of_ports, 1 => Just(Traffic::Unknown("x".into()))]
}

/// The words of a rule of iptables after its chain: most are accepted, the others refused for one
/// reason or another.
pub fn iptables_rules() -> impl Strategy<Value = Vec<String>> {
    let parts = prop_oneof![4 => rule_parts(MATCHES), 1 => rule_parts(ODD_MATCHES)];
    let protocol = prop_oneof![6 => rule_parts(PROTOCOLS), 1 => rule_parts(ODD_PROTOCOLS)];
    let target = prop_oneof![6 => rule_parts(TARGETS), 1 => rule_parts(ODD_TARGETS)];
    let parts = (protocol, vec(parts, 0..4), target, prop::bool::weighted(0.1)).prop_map(
        |(protocol, matches, target, is_shuffled)| {
            let mut parts = vec![protocol];
            parts.extend(matches);
            parts.push(target);
            (parts, is_shuffled)
        },
    );
    let shuffled = parts.prop_flat_map(|(parts, is_shuffled)| {
        if is_shuffled { Just(parts).prop_shuffle().boxed() } else { Just(parts).boxed() }
    });
    shuffled.prop_map(|parts| parts.concat())
}

fn rule_parts(parts: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    // An underscore is a space within a word.
    let word = |word: &str| word.replace('_', " ");
    prop::sample::select(parts).prop_map(move |part| part.split_whitespace().map(word).collect())
}

const PROTOCOLS: &[&str] = &[
    "",
    "-p tcp",
    "-p tcp",
    "-p tcp",
    "-p udp",
    "-p sctp",
    "-p dccp",
    "-p icmp",
    "-p udplite",
    "-p all",
    "-p TCP",
    "-p 17",
    "-p 0x6",
    "--protocol tcp",
    "--proto udp",
    "-p 50",
    "-p gre",
];

const ODD_PROTOCOLS: &[&str] = &["! -p tcp", "! -p all", "-p 256", "-p tcp -p udp", "-p", "! -p 0"];

const MATCHES: &[&str] = &[
    "--sport 5",
    "--sport 100:200",
    "! --sport 7",
    "--source-port 1024:",
    "--sport :",
    "--dport 80",
    "-m tcp",
    "-m udp",
    "-m tcp --sport 5:6",
    "-m udp --sport 9",
    "-m multiport --sports 1,5:9",
    "-m multiport --sport 1",
    "-m multiport ! --source-ports 6,7",
    "-m multiport --dports 80,443",
    "-m multiport --ports 53",
    "-m comment --comment a_b",
    "-m comment --comment x",
    "-m mark --mark 0x1/0xff",
    "-m mark ! --mark 2",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --src-type LOCAL --limit-iface-out",
    "-m conntrack --ctstate NEW",
    "-m state --state NEW,ESTABLISHED",
    "-m owner --uid-owner 0",
    "-m limit --limit 5/s",
    "-m statistic --mode random --probability 0.5",
    "-m iprange --src-range 10.0.0.1-10.0.0.5",
    "-m pkttype --pkt-type unicast",
    "-m length --length 5:9",
    "-m policy --dir out --pol none",
    "-m physdev --physdev-is-bridged",
    "-m connmark --mark 1",
    "--syn",
    "! --syn",
    "--tcp-flags SYN,ACK SYN",
    "-o eth0",
    "-o wg+",
    "! -o eth0",
    "-o +",
    "-o lo",
    "! -o lo",
    "-s 10.1.0.0/16",
    "-s 10.0.0.1,10.0.0.2",
    "! -s 192.0.2.1",
    "-d 192.0.2.0/24",
    "! -d 10.0.0.0/8",
    "-s 10.1.2.3/255.255.0.0",
    "-s 10/8",
    "-s 0/0",
    "-s 10.0.0.0/255.0.255.0",
    "-f",
    "! -f",
    "-v",
    "-c 1 2",
    "-w",
    "-w 5",
    "--wait 5",
    "-w5",
    "-4",
    "--out eth0",
    "--sourc 10.0.0.1",
    "--src 10.0.0.1",
    "-m dccp --dport 5",
    "-m sctp ! --sport 4",
    "-p icmp --icmp-type 8",
];

const ODD_MATCHES: &[&str] = &[
    "-i eth0",
    "-n",
    "-x",
    "--line-numbers",
    "-6",
    "-o",
    "-o verylongname1234567",
    "-s 1.2.3.4/33",
    "-s 256.1.1.1",
    "! -d 10.0.0.0/8,192.0.2.0/24",
    "-s ::1",
    "--sport 5:1",
    "--sport 70000",
    "--sport 5,6",
    "--sport 5-6",
    "--sports 5",
    "-m multiport",
    "-m comment",
    "-m comment ! --comment a",
    "-m multiport --sports 1 --dports 2",
    "-m mark",
    "-m mark --mark x",
    "--so 5",
    "--source-p 5",
    "--s 10.0.0.1",
    "--p tcp",
    "! -m tcp",
    "! !",
    "word",
    "-",
    "-m mac --mac-source 00:11:22:33:44:55",
    "--dst-type LOCAL",
    "--sport 1 --sport 2",
    "--to-ports 5",
    "--random",
    "-t nat",
    "-c 1",
    "-m multiport --sports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
    "-m icmp",
    "--syn --syn",
    "-m statistic",
    "-m conntrack",
    "-m policy --pol none",
    "-w x",
    "-m multiport --sports :5",
];

const TARGETS: &[&str] = &[
    "-j MASQUERADE --to-ports 1024-2047",
    "-j MASQUERADE --to-ports 1024-2047 --random",
    "-j MASQUERADE --to-ports 9 --random-fully",
    "-j MASQUERADE",
    "-j MASQUERADE --random",
    "-j SNAT --to-source 192.0.2.1:1024-2047",
    "-j SNAT --to-source 192.0.2.1",
    "-j SNAT --to-source :3000-3999 --persistent",
    "-j SNAT --to 192.0.2.1-192.0.2.9:5",
    "-j ACCEPT",
    "--jump MASQUERADE --to-port 0x400-02001",
    "-j MASQUERADE --to 9",
    "-j RETURN",
    "-j LOG",
    "",
    "-j MASQUERADE --to-ports 0",
    "-j MASQUERADE --to-ports domain",
    "-j MARK --set-mark 1",
];

const ODD_TARGETS: &[&str] = &[
    "-j MASQUERADE --to-ports 9-5",
    "-j MASQUERADE --to-ports 5:9",
    "-j MASQUERADE --to-ports",
    "-j MASQUERADE --to-ports 9 --to-ports 8",
    "-j MASQUERADE ! --to-ports 9",
    "-j SNAT",
    "-j MASQUERADE --random --random",
    "-j MASQUERADE --rand",
    "-j MASQUERADE --persistent",
    "-j SNAT --to-source host",
    "-j SNAT --to-source 192.0.2.1:5:6",
    "-j DROP",
    "-j ! MASQUERADE",
    "-j DNAT --to-destination 10.0.0.1",
    "-j MASQUERADE -j MASQUERADE",
    "! -j MASQUERADE",
    "-j ACCEPT --to-ports 5",
    "-j MASQUERADE --to-ports 70000",
    "-j MASQUERADE extra",
    "-j MASQUERADE --to-ports 5-6-7",
    "-j REDIRECT",
    "-j MASQUERADE --to-ports 08",
];

/// Commands on the chain POSTROUTING: the words after `-t nat`. Each rule has a comment of its own.
pub fn iptables_commands() -> impl Strategy<Value = Vec<Vec<String>>> {
    let operations =
        prop::sample::select(vec!["-A", "-I", "-I 1", "-I N", "-D N", "-R N", "-D", "-C", "-F"]);
    let weighted =
        prop_oneof![8 => prop::sample::select(vec!["-A", "-A", "-I N", "-I"]), 2 => operations];
    let steps = vec((weighted, 1..5usize, iptables_rules()), 10..40);
    steps.prop_map(|steps| {
        let mut commands: Vec<Vec<String>> = Vec::new();
        for (at, (operation, number, rule)) in steps.into_iter().enumerate() {
            let (option, index) = operation.split_once(' ').unwrap_or((operation, ""));
            let mut words = vec![option.to_owned(), "POSTROUTING".to_owned()];
            words.extend(match index {
                "N" => Some(number.to_string()),
                "" => None,
                index => Some(index.to_owned()),
            });
            let comment = ["-m", "comment", "--comment"].map(String::from);
            let is_by_rule = matches!(operation, "-D" | "-C");
            if is_by_rule {
                // The rule of a command before it.
                let earlier =
                    commands.get(number).filter(|words| words.first().is_some_and(|w| w == "-A"));
                let Some(earlier) = earlier else { continue };
                words.extend(earlier.iter().skip(2).cloned());
            } else if !matches!(operation, "-D N" | "-F") {
                words.extend(comment);
                words.push(format!("c{at}"));
                words.extend(rule);
            }
            commands.push(words);
        }
        commands
    })
}
