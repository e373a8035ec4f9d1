use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::decision::{CtState, Decision, evaluate, permits};
use crate::net::family::Families;
use crate::net::port::Port;
use crate::policy::scope::{Ipsec, Origin, OutInterfaces, Scope};
use crate::policy::{Address, OpenConnections, PickUp, PolicySpec, Target};
use crate::strategies::allocation::block_tables;
use crate::strategies::{documents, flows, ports, wide_documents, wide_policies};

const POLICY: &str = "[[policy]]\nname = \"a\"\nto-ports = \"1-9\"\n";

fn policy(name: &str) -> Policy {
    let spec = PolicySpec::to(Target::Ports("49152-61000".parse().unwrap()));
    Policy::new(PolicySpec { name: name.parse().unwrap(), ..spec }).unwrap()
}

#[test]
fn every_key_is_read_and_printed() {
    let text = r#"[[policy]]
name = "builds"
protocols = ["tcp", "sctp"]
out-interfaces = ["eth0", "wg*"]
except-interfaces = ["wg0"]
in-interfaces = ["docker0", "br-*"]
sources = ["172.16.0.0/12"]
destinations = ["0.0.0.0/1", "198.51.100.7/32"]
except-destinations = ["10.0.0.0/8", "2001:db8::/32"]
destination-ports = "80,443"
origin = "forwarded"
families = ["ipv4"]
mark = "0x1/0xff"
ipsec = "match"
source-ports = "1-65535"
exempt-source-ports = "500,4500"
to-ports = "49152-61000"
except-ports = "50000-50010"
random = true
fully-random = true
persistent = true
per-source-stable = true
address = "192.0.2.1"
pick-up = "any"
enforce = true
open-connections = "drop"

[[policy]]
name = "subscribers"
blocks = "10.0.0.0/22=63@1024-65535"

[[policy]]
name = "two"
out-interfaces = "any"
blocks = ["10.0.0.1=1024-2047", "10.0.0.2=2048-4095"]

[[policy]]
name = "host"
origin = "local"
families = ["ipv6"]
to-ports = "local"
address = "keep"
"#;
    let document: Document = text.parse().unwrap();
    let [builds, _, _, host] = document.policies() else { panic!("four policies") };
    assert_eq!(builds.spec().scope.origin, Origin::Forwarded);
    assert_eq!(builds.spec().scope.out_interfaces, "eth0,wg*".parse().unwrap());
    assert_eq!(builds.spec().address, Address::Fixed("192.0.2.1".parse().unwrap()));
    assert_eq!(builds.spec().pick_up, PickUp::Any);
    assert_eq!(
        (builds.spec().scope.ipsec, builds.spec().open_connections),
        (Ipsec::Match, OpenConnections::Drop)
    );
    assert_eq!(builds.spec().scope.mark.map(|mark| mark.to_string()).as_deref(), Some("0x1/0xff"));
    assert_eq!(builds.spec().scope.destination_ports.to_string(), "80,443");
    assert_eq!(
        (builds.spec().scope.in_interfaces.len(), builds.spec().scope.except_interfaces.len()),
        (2, 1)
    );
    assert_eq!((&host.spec().target, host.spec().scope.families), (&Target::Local, Families::Ipv6));
    assert_eq!(document.to_toml(), text);
}

#[test]
fn defaults_are_not_printed() {
    let text = r#"
        policy = [{ name = "a", to-ports = "49152:61000", out-interfaces = "uplinks",
                    origin = "both", families = ["ipv6", "ipv4"], protocols = ["udp", "tcp"],
                    address = "auto", pick-up = "opening", enforce = false,
                    destination-ports = "1-65535", ipsec = "skip", open-connections = "keep" }]"#;
    let document: Document = text.parse().unwrap();
    assert_eq!(document, policy("a").into());
    assert_eq!(document.to_toml(), "[[policy]]\nname = \"a\"\nto-ports = \"49152-61000\"\n");
}

#[test]
fn duplicate_interfaces_are_removed() {
    let text = format!("{POLICY}sources = [\"10.0.0.7\"]\nout-interfaces = [\"eth0\", \"eth0\"]");
    let document: Document = text.parse().unwrap();
    let scope = &document.policies()[0].spec().scope;
    assert_eq!(scope.sources, ["10.0.0.7/32".parse().unwrap()]);
    assert_eq!(scope.out_interfaces, "eth0".parse().unwrap());
}

/// The errors of these texts, each with its place.
fn errors(texts: impl IntoIterator<Item = String>) -> String {
    let error = |text: String| match text.parse::<Document>() {
        Ok(document) => panic!("{text:?} is {document:?}"),
        Err(error) => format!("{text}\n=> {error}\n\n"),
    };
    texts.into_iter().map(error).collect()
}

/// The errors of a policy with these lines.
fn errors_of_lines(lines: &[&str]) -> String {
    errors(lines.iter().map(|lines| format!("{POLICY}{lines}"))).replace(POLICY, "")
}

#[test]
fn errors_of_values() {
    let errors = errors_of_lines(&[
        "protocols = [\"tcp\", \"é\"]",
        "protocols = [\"tcp\", true]",
        "protocols = [ ]",
        "protocols = \"gre\"",
        "sources = [\"10.0.0.0/33\"]",
        "sources = [\"10.0.0.0/8\", \"10.0.0.1/8\"]",
        "sources = \"10.0.0.0/8,2001:db8::1/32\"",
        "out-interfaces = [\"eth0\", \"any\"]",
        "out-interfaces = [\"*\"]",
        "out-interfaces = [\"eth+\"]",
        "out-interfaces = \"!lo\"",
        "families = [\"ip\"]",
        "origin = \"here\"",
        "origin = 1.5",
        "origin = [\"local\", \"forwarded\"]",
        "random = 1",
        "random = \"true\"",
        "address = \"1.2.3\"",
        "pick-up = \"all\"",
        "source-ports = 2024-01-01",
        "source-ports = 0",
        "source-ports = \"61000 - 49152\"",
        "destination-ports = [80, 70000]",
        "mark = \"0x101/0xff\"",
        "mark = 0x1_0000_0000",
        "ipsec = \"never\"",
        "open-connections = {}",
        "name = 1",
    ]);
    expect![[r#"
        protocols = ["tcp", "é"]
        => line 4, column 21: protocols "é": unknown protocol `é`: expected tcp, udp, udplite, sctp, icmp or icmpv6

        protocols = ["tcp", true]
        => line 4, column 21: protocols true: expected a string or a list of strings, like ["tcp"]

        protocols = [ ]
        => line 4, column 13: protocols [ ]: an empty list has no meaning: omit the key, or name something

        protocols = "gre"
        => line 4, column 13: protocols "gre": gre has no ports to translate: expected tcp, udp, udplite, sctp, icmp or icmpv6

        sources = ["10.0.0.0/33"]
        => line 4, column 12: sources "10.0.0.0/33": `10.0.0.0/33` is not a network: expected one like 10.0.0.0/8 or 2001:db8::/32, or an address

        sources = ["10.0.0.0/8", "10.0.0.1/8"]
        => line 4, column 26: sources "10.0.0.1/8": 10.0.0.1/8 has bits after its prefix: expected the network 10.0.0.0/8 or the address 10.0.0.1

        sources = "10.0.0.0/8,2001:db8::1/32"
        => line 4, column 11: sources "10.0.0.0/8,2001:db8::1/32": 2001:db8::1/32 has bits after its prefix: expected the network 2001:db8::/32 or the address 2001:db8::1

        out-interfaces = ["eth0", "any"]
        => line 4, column 27: out-interfaces "any": `any` is not a name here: expected the names of interfaces, or the word by itself

        out-interfaces = ["*"]
        => line 4, column 19: out-interfaces "*": `*` includes loopback: write `any` for every interface except loopback

        out-interfaces = ["eth+"]
        => line 4, column 19: out-interfaces "eth+": `eth+`: expected a prefix with `*`, like wg*

        out-interfaces = "!lo"
        => line 4, column 18: out-interfaces "!lo": `!lo`: expected the interfaces to except in except-interfaces, without `!`

        families = ["ip"]
        => line 4, column 13: families "ip": expected ipv4 or ipv6

        origin = "here"
        => line 4, column 10: origin "here": expected local, forwarded or both

        origin = 1.5
        => line 4, column 10: origin 1.5: expected a string, like "forwarded"

        origin = ["local", "forwarded"]
        => line 4, column 11: origin "local": expected one value, not a list

        random = 1
        => line 4, column 10: random 1: expected true or false

        random = "true"
        => line 4, column 10: random "true": expected true or false

        address = "1.2.3"
        => line 4, column 11: address "1.2.3": expected auto, masquerade, keep or an address like 192.0.2.1

        pick-up = "all"
        => line 4, column 11: pick-up "all": expected opening or any

        source-ports = 2024-01-01
        => line 4, column 16: source-ports 2024-01-01: expected a string, like "32768-61000"

        source-ports = 0
        => line 4, column 16: source-ports 0: port 0 is not a port: expected 1 to 65535

        source-ports = "61000 - 49152"
        => line 4, column 16: source-ports "61000 - 49152": range 61000-49152 is reversed: write 49152-61000

        destination-ports = [80, 70000]
        => line 4, column 26: destination-ports 70000: port 70000 is too large: expected 1 to 65535

        mark = "0x101/0xff"
        => line 4, column 8: mark "0x101/0xff": 0x101/0xff matches no packet: the value has bits outside the mask

        mark = 0x1_0000_0000
        => line 4, column 8: mark 0x1_0000_0000: `0x100000000` is not a mark: expected a 32-bit number, like 0x1, or 0x1/0xff with a mask

        ipsec = "never"
        => line 4, column 9: ipsec "never": expected skip or match

        open-connections = {}
        => line 4, column 20: open-connections {}: expected a string, like "drop"

        name = 1
        => line 4, column 8: `1`: a value needs quotes: write name = "1"

    "#]].assert_eq(&errors);
}

#[test]
fn errors_of_keys_that_exclude_each_other() {
    let errors = errors_of_lines(&[
        "except-ports = \"1-65535\"",
        "exempt-source-ports = \"1-65535\"",
        "source-ports = \"2000-3000\"\nexempt-source-ports = \"1000-4000\"",
        "address = \"2001:db8::1\"\nfamilies = [\"ipv4\"]",
        "families = [\"ipv4\"]\nsources = [\"2001:db8::/32\"]",
        "address = \"192.0.2.1\"\nsources = [\"2001:db8::/32\"]",
        "sources = [\"10.0.0.0/8\"]\ndestinations = [\"2001:db8::/32\"]",
        "sources = [\"10.0.0.0/8\"]\ndestinations = [\"2001:db8::/32\"]\nfamilies = [\"ipv4\"]",
        "except-destinations = [\"0.0.0.0/0\", \"::/0\"]",
        "except-destinations = [\"0.0.0.0/0\"]\nsources = [\"10.0.0.0/8\"]",
        "destinations = [\"10.0.0.0/8\"]\nexcept-destinations = [\"10.0.0.0/9\", \"10.128.0.0/9\"]",
        "sources = [\"224.0.0.0/4\"]",
        "destinations = [\"ff02::/16\"]",
        "sources = [\"127.0.0.1\"]",
        "origin = \"local\"\nin-interfaces = [\"docker0\"]",
        "out-interfaces = [\"eth0\", \"wg0\"]\nexcept-interfaces = [\"e*\", \"wg0\"]",
        "out-interfaces = [\"lo\"]",
        "in-interfaces = [\"lo\"]",
        "address = \"0.0.0.0\"",
        "address = \"::\"",
        "address = \"127.0.0.1\"",
        "address = \"224.0.0.1\"",
        "address = \"255.255.255.255\"",
        "address = \"fe80::1\"",
        "map-e = \"psid=1,psid-len=1\"",
    ]);
    expect![[r#"
        except-ports = "1-65535"
        => line 4, column 16: policy `a`: no ports left to permit: to-ports minus except-ports is empty

        exempt-source-ports = "1-65535"
        => line 4, column 23: policy `a`: no source ports left to translate: source-ports minus exempt-source-ports is empty

        source-ports = "2000-3000"
        exempt-source-ports = "1000-4000"
        => line 5, column 23: policy `a`: no source ports left to translate: source-ports minus exempt-source-ports is empty

        address = "2001:db8::1"
        families = ["ipv4"]
        => line 5, column 12: policy `a`: families ipv4 and address 2001:db8::1 exclude each other: no connection can match both

        families = ["ipv4"]
        sources = ["2001:db8::/32"]
        => line 5, column 11: policy `a`: sources 2001:db8::/32 and families ipv4 exclude each other: no connection can match both

        address = "192.0.2.1"
        sources = ["2001:db8::/32"]
        => line 5, column 11: policy `a`: sources 2001:db8::/32 and address 192.0.2.1 exclude each other: no connection can match both

        sources = ["10.0.0.0/8"]
        destinations = ["2001:db8::/32"]
        => line 5, column 16: policy `a`: sources 10.0.0.0/8 and destinations 2001:db8::/32 exclude each other: no connection can match both

        sources = ["10.0.0.0/8"]
        destinations = ["2001:db8::/32"]
        families = ["ipv4"]
        => line 6, column 12: policy `a`: destinations 2001:db8::/32 and families ipv4 exclude each other: no connection can match both

        except-destinations = ["0.0.0.0/0", "::/0"]
        => line 4, column 23: policy `a`: no connection can match except-destinations 0.0.0.0/0,::/0

        except-destinations = ["0.0.0.0/0"]
        sources = ["10.0.0.0/8"]
        => line 5, column 11: policy `a`: sources 10.0.0.0/8 and except-destinations 0.0.0.0/0 exclude each other: no connection can match both

        destinations = ["10.0.0.0/8"]
        except-destinations = ["10.0.0.0/9", "10.128.0.0/9"]
        => line 5, column 23: policy `a`: destinations 10.0.0.0/8 and except-destinations 10.0.0.0/9,10.128.0.0/9 exclude each other: no connection can match both

        sources = ["224.0.0.0/4"]
        => line 4, column 11: policy `a`: no connection can match sources 224.0.0.0/4

        destinations = ["ff02::/16"]
        => line 4, column 16: policy `a`: no connection can match destinations ff02::/16

        sources = ["127.0.0.1"]
        => line 4, column 11: policy `a`: no connection can match sources 127.0.0.1/32

        origin = "local"
        in-interfaces = ["docker0"]
        => line 5, column 17: policy `a`: in-interfaces docker0 and origin local exclude each other: no connection can match both

        out-interfaces = ["eth0", "wg0"]
        except-interfaces = ["e*", "wg0"]
        => line 5, column 21: policy `a`: out-interfaces eth0,wg0 and except-interfaces e*,wg0 exclude each other: no connection can match both

        out-interfaces = ["lo"]
        => line 4, column 18: policy `a`: out-interfaces: no policy applies to the loopback interface: name another one

        in-interfaces = ["lo"]
        => line 4, column 17: policy `a`: in-interfaces: no policy applies to the loopback interface: name another one

        address = "0.0.0.0"
        => line 4, column 11: policy `a`: address 0.0.0.0: no connection can have a source address that is unspecified: expected an address of this host or network

        address = "::"
        => line 4, column 11: policy `a`: address ::: no connection can have a source address that is unspecified: expected an address of this host or network

        address = "127.0.0.1"
        => line 4, column 11: policy `a`: address 127.0.0.1: no connection can have a source address that is loopback: expected an address of this host or network

        address = "224.0.0.1"
        => line 4, column 11: policy `a`: address 224.0.0.1: no connection can have a source address that is multicast: expected an address of this host or network

        address = "255.255.255.255"
        => line 4, column 11: policy `a`: address 255.255.255.255: no connection can have a source address that is broadcast: expected an address of this host or network

        address = "fe80::1"
        => line 4, column 11: policy `a`: address fe80::1: no connection can have a source address that is link-local: expected an address of this host or network

        map-e = "psid=1,psid-len=1"
        => line 4, column 9: map-e "psid=1,psid-len=1": the policy has to-ports already: expected one of them

    "#]].assert_eq(&errors);
}

#[test]
fn errors_of_syntax_and_misspelt_keys() {
    let errors = errors_of_lines(&[
        "toports = 1",
        "to_ports = 1",
        "TO-PORTS = 1",
        "sport = \"1\"",
        "speed = 1",
        "speed = = 1",
        "random = maybe",
        "source-ports = 49152-61000",
        "source-ports = 49152-61000 # a comment",
        "sources = 10.0.0.0/8",
        "sources = [10.0.0.0/8, 192.0.2.1]",
        "out-interfaces = eth0",
        "source-ports = \"1",
        "\u{1b}[2J = 1",
        "name = \"b\"",
    ]);
    expect![[r#"
        toports = 1
        => line 4, column 1: unknown key `toports`: expected to-ports

        to_ports = 1
        => line 4, column 1: unknown key `to_ports`: expected to-ports

        TO-PORTS = 1
        => line 4, column 1: unknown key `TO-PORTS`: expected to-ports

        sport = "1"
        => line 4, column 1: unknown key `sport`: expected source-ports

        speed = 1
        => line 4, column 1: unknown key `speed`: expected one of name, protocols, out-interfaces, except-interfaces, in-interfaces, sources, destinations, except-destinations, destination-ports, origin, families, mark, ipsec, source-ports, exempt-source-ports, to-ports, map-e, blocks, blocks-file, except-ports, random, fully-random, persistent, spread, per-source-stable, address, pick-up, timeouts, enforce, open-connections, expected-connections

        speed = = 1
        => line 4, column 9: `=`: not TOML: extra `=`, expected nothing

        random = maybe
        => line 4, column 10: random maybe: expected true or false

        source-ports = 49152-61000
        => line 4, column 16: `49152-61000`: a value needs quotes: write source-ports = "49152-61000"

        source-ports = 49152-61000 # a comment
        => line 4, column 16: `49152-61000`: a value needs quotes: write source-ports = "49152-61000"

        sources = 10.0.0.0/8
        => line 4, column 11: `10.0.0.0/8`: a value needs quotes: write sources = "10.0.0.0/8"

        sources = [10.0.0.0/8, 192.0.2.1]
        => line 4, column 11: `[10.0.0.0/8, 192.0.2.1]`: a value needs quotes: write sources = ["10.0.0.0/8", "192.0.2.1"]

        out-interfaces = eth0
        => line 4, column 18: `eth0`: a value needs quotes: write out-interfaces = "eth0"

        source-ports = "1
        => line 4, column 18: `source-ports = "1`: not TOML: invalid basic string, expected `"`

        [2J = 1
        => line 4, column 2: `\u001b[2J = 1`: not TOML: key with no value, expected `=`

        name = "b"
        => line 4, column 1: `name`: not TOML: duplicate key

    "#]].assert_eq(&errors);
}

#[test]
fn errors_of_spread_and_families() {
    let policy = |lines: &str| format!("[[policy]]\nname = \"a\"\n{lines}");
    let errors = errors(
        [
            "blocks = \"10.0.0.1=1\"\nspread = \"hash\"",
            "map-e = \"psid=52,psid-len=8\"\nfamilies = [\"ipv6\"]",
            "to-ports = \"1,3\"\nspread = \"round-robin\"\nper-source-stable = true",
            "to-ports = \"1,3\"\nspread = \"renumber\"",
            "to-ports = \"1,3\"\nspread = \"remap\"",
            "map-e = \"psid=52,psid-len=8\"\nspread = \"remap\"\nsources = [\"10.0.0.0/8\"]",
        ]
        .map(policy),
    );
    expect![[r#"
        [[policy]]
        name = "a"
        blocks = "10.0.0.1=1"
        spread = "hash"
        => line 4, column 10: policy `a`: blocks and spread exclude each other: each source has one block

        [[policy]]
        name = "a"
        map-e = "psid=52,psid-len=8"
        families = ["ipv6"]
        => line 4, column 12: policy `a`: families ipv6 and map-e psid=52,psid-len=8,offset=6 exclude each other: no connection can match both

        [[policy]]
        name = "a"
        to-ports = "1,3"
        spread = "round-robin"
        per-source-stable = true
        => line 5, column 21: policy `a`: spread and per-source-stable exclude each other: per-source-stable is the same as spread = hash

        [[policy]]
        name = "a"
        to-ports = "1,3"
        spread = "renumber"
        => line 4, column 10: spread "renumber": expected round-robin, weighted, hash or remap

        [[policy]]
        name = "a"
        to-ports = "1,3"
        spread = "remap"
        => line 4, column 10: policy `a`: spread and address exclude each other: remap requires address = masquerade or a fixed address

        [[policy]]
        name = "a"
        map-e = "psid=52,psid-len=8"
        spread = "remap"
        sources = ["10.0.0.0/8"]
        => line 5, column 11: policy `a`: spread and sources exclude each other: remap cannot recognize it in packets that come in: remove one of them

    "#]].assert_eq(&errors);
}

#[test]
fn errors_of_targets() {
    let policy = |lines: &str| format!("[[policy]]\nname = \"a\"\n{lines}");
    let errors = errors(
        [
            "to-ports = \"\"",
            "to-ports = \"10-x\"",
            "to-ports = \"none\"",
            "to-ports = 49152-61000",
            "map-e = \"psid=300,psid-len=8\"",
            "blocks = true",
            "blocks = [\"10.0.0.1=1\",\n   \"10.0.0.2\"]",
            "blocks = [\"10.0.0.1=1\",\n  \"10.0.0.1=2\"]",
            "blocks = \"10.0.0.1=1\"\nper-source-stable = true",
            "blocks = \"10.0.0.1=1\"\nexcept-ports = \"1\"",
            "blocks = \"10.0.0.0/30=64@192.0.2.1:1024-65535\"\naddress = \"keep\"",
            "blocks = \"2001:db8::/126=64@1024-65535\"\nfamilies = [\"ipv4\"]",
            "blocks = \"10.0.0.0/30=64@1024-65535\"\nsources = [\"10.0.0.4\"]",
            "blocks = \"10.0.0.0/30=64@224.0.0.1:1024-65535\"",
            "blocks = [\"10.0.0.1=0.0.0.0:1024\"]",
            "enforce = true",
        ]
        .map(policy),
    );
    expect![[r#"
        [[policy]]
        name = "a"
        to-ports = ""
        => line 3, column 12: to-ports "": empty port range: expected PORT or FIRST-LAST, like 49152-61000

        [[policy]]
        name = "a"
        to-ports = "10-x"
        => line 3, column 12: to-ports "10-x": `x` is not a port: expected a number from 1 to 65535

        [[policy]]
        name = "a"
        to-ports = "none"
        => line 3, column 12: policy `a`: no ports left to permit: to-ports minus except-ports is empty

        [[policy]]
        name = "a"
        to-ports = 49152-61000
        => line 3, column 12: `49152-61000`: a value needs quotes: write to-ports = "49152-61000"

        [[policy]]
        name = "a"
        map-e = "psid=300,psid-len=8"
        => line 3, column 9: map-e "psid=300,psid-len=8": psid 300 does not fit in 8 bits: expected 0 to 255

        [[policy]]
        name = "a"
        blocks = true
        => line 3, column 10: blocks true: expected a string or a list of strings, like "10.0.0.0/22=63@1024-65535"

        [[policy]]
        name = "a"
        blocks = ["10.0.0.1=1",
           "10.0.0.2"]
        => line 4, column 4: blocks "10.0.0.2": `10.0.0.2` is not a block: expected SOURCE=PORTS, like 10.0.0.1=1024-2047

        [[policy]]
        name = "a"
        blocks = ["10.0.0.1=1",
          "10.0.0.1=2"]
        => line 3, column 11: blocks "10.0.0.1=1": 10.0.0.1=1 and 10.0.0.1=2 are for the same source: expected one block for each

        [[policy]]
        name = "a"
        blocks = "10.0.0.1=1"
        per-source-stable = true
        => line 4, column 21: policy `a`: blocks and per-source-stable exclude each other: each source has one block

        [[policy]]
        name = "a"
        blocks = "10.0.0.1=1"
        except-ports = "1"
        => line 4, column 16: policy `a`: blocks and except-ports exclude each other: remove the ports from those of the blocks

        [[policy]]
        name = "a"
        blocks = "10.0.0.0/30=64@192.0.2.1:1024-65535"
        address = "keep"
        => line 4, column 11: policy `a`: blocks and address exclude each other: the blocks name the outside addresses

        [[policy]]
        name = "a"
        blocks = "2001:db8::/126=64@1024-65535"
        families = ["ipv4"]
        => line 4, column 12: policy `a`: families ipv4 and blocks 2001:db8::/126=64@1024-65535 exclude each other: no connection can match both

        [[policy]]
        name = "a"
        blocks = "10.0.0.0/30=64@1024-65535"
        sources = ["10.0.0.4"]
        => line 4, column 11: policy `a`: sources 10.0.0.4/32 and blocks 10.0.0.0/30=64@1024-65535 exclude each other: no connection can match both

        [[policy]]
        name = "a"
        blocks = "10.0.0.0/30=64@224.0.0.1:1024-65535"
        => line 3, column 10: policy `a`: blocks 224.0.0.1: no connection can have a source address that is multicast: expected an address of this host or network

        [[policy]]
        name = "a"
        blocks = ["10.0.0.1=0.0.0.0:1024"]
        => line 3, column 10: policy `a`: blocks 0.0.0.0: no connection can have a source address that is unspecified: expected an address of this host or network

        [[policy]]
        name = "a"
        enforce = true
        => line 1, column 1: policy `a` has no target: expected one of to-ports, map-e, blocks and blocks-file

    "#]].assert_eq(&errors);
}

#[test]
fn errors_of_documents() {
    let twice = format!("{POLICY}\n{POLICY}");
    let errors = errors(
        [
            "",
            "policy = []",
            "policy = 1",
            "policy = [1]",
            "\n[policy]\nname = \"a\"",
            "[policy.builds]\nto-ports = \"1\"",
            "a = 1\n[[policy]]",
            "to-ports = \"1\"\n[[policy]]",
            "[[policies]]\nname = \"a\"",
            "[[policy]]\n",
            "[[policy]]\nname = \"9\"",
            &twice,
            "nonsense",
        ]
        .map(String::from),
    );
    expect![[r#"

        => line 1, column 1: there is no policy: expected at least one [[policy]]

        policy = []
        => line 1, column 10: there is no policy: expected at least one [[policy]]

        policy = 1
        => line 1, column 10: expected [[policy]] above each policy

        policy = [1]
        => line 1, column 11: expected [[policy]] above each policy


        [policy]
        name = "a"
        => line 2, column 1: expected [[policy]] above each policy

        [policy.builds]
        to-ports = "1"
        => line 1, column 1: expected [[policy]] above each policy, with name = "builds" below it

        a = 1
        [[policy]]
        => line 1, column 1: unknown key `a`: expected [[policy]]

        to-ports = "1"
        [[policy]]
        => line 1, column 1: to-ports is outside of a policy: write [[policy]] above it

        [[policies]]
        name = "a"
        => line 1, column 3: unknown key `policies`: expected [[policy]]

        [[policy]]

        => line 1, column 1: [[policy]]: the policy has no name: expected for example name = "builds"

        [[policy]]
        name = "9"
        => line 2, column 8: name "9": `9` is not the name of a policy: expected a letter, then letters, digits, `_`, `-` or `.`, at most 32 in all

        [[policy]]
        name = "a"
        to-ports = "1-9"

        [[policy]]
        name = "a"
        to-ports = "1-9"

        => line 6, column 8: "a": policies 1 and 2 are both named `a`: expected a name of its own for each

        nonsense
        => line 1, column 9: `nonsense`: not TOML: key with no value, expected `=`

    "#]].assert_eq(&errors);
}

#[test]
fn other_ways_to_write_values_are_understood() {
    let read = |lines: &str| {
        let text = format!("[[policy]]\nname = \"a\"\n{lines}");
        text.parse::<Document>().unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    for (lines, plain) in [
        ("to-ports = 4500", "to-ports = \"4500\""),
        ("to-ports = [\"1024-2000\", 3000]", "to-ports = \"1024-2000,3000\""),
        ("to-ports = \" 49152 - 61000 , 1024 : 2000\"", "to-ports = \"49152-61000,1024-2000\""),
        ("to-ports = \"IANA\"", "to-ports = \"49152-65535\""),
        ("to-ports = \"windows\"", "to-ports = \"49152-65535\""),
        ("to-ports = \"linux,1024\"", "to-ports = \"32768-60999,1024\""),
        ("to-ports = \"linux-before-4.2\"", "to-ports = \"32768-61000\""),
        ("to-ports = \"LOCAL\"", "to-ports = \"local\""),
        ("blocks = \"10.0.0.0/30=64@linux\"", "blocks = \"10.0.0.0/30=64@32768-60999\""),
        ("to-ports = 1\nprotocols = \"TCP, Udp\"", "to-ports = 1\nprotocols = [\"tcp\", \"udp\"]"),
        ("to-ports = 1\nsources = \"10.0.0.7\"", "to-ports = 1\nsources = [\"10.0.0.7/32\"]"),
        ("to-ports = 1\nfamilies = \"IPv4\"", "to-ports = 1\nfamilies = [\"ipv4\"]"),
        ("to-ports = 1\norigin = \"Local\"", "to-ports = 1\norigin = \"local\""),
        ("to-ports = 1\nmark = 0x1", "to-ports = 1\nmark = \"0x1\""),
        (
            "to-ports = 1\nout-interfaces = \"eth0,wg*\"",
            "to-ports = 1\nout-interfaces = [\"eth0\", \"wg*\"]",
        ),
    ] {
        assert_eq!(read(lines), read(plain), "{lines}");
    }
}

#[test]
fn map_e_and_blocks_print_as_written() {
    for target in [
        "map-e = \"psid=52,psid-len=8,offset=1\"",
        "blocks = \"10.0.0.0/22=63@1024-65535\"",
        "blocks = [\"10.0.0.1=192.0.2.1:10000-39999\", \"10.0.0.2=192.0.2.1:1024-2047\"]",
    ] {
        let text = format!("[[policy]]\nname = \"a\"\n{target}\n");
        assert_eq!(text.parse::<Document>().unwrap().to_toml(), text);
    }
}

#[test]
fn policies_are_json_with_numbers() {
    let text = format!(
        "{POLICY}mark = \"0x1/0xff\"\nsources = [\"10.0.0.0/8\"]\nexcept-ports = \"5\"\nrandom = true"
    );
    let document: Document = text.parse().unwrap();
    expect![[r#"
        [
          {
            "address": "auto",
            "blocks": null,
            "blocks_file": null,
            "destination_ports": [
              {
                "first": 1,
                "last": 65535
              }
            ],
            "destinations": [],
            "enforce": false,
            "except_destinations": [],
            "except_interfaces": [],
            "except_ports": [
              {
                "first": 5,
                "last": 5
              }
            ],
            "exempt_source_ports": [],
            "expected_connections": "pass",
            "families": [
              "ipv4",
              "ipv6"
            ],
            "fully_random": false,
            "in_interfaces": [],
            "ipsec": "skip",
            "map_e": null,
            "mark": {
              "mask": 255,
              "value": 1
            },
            "name": "a",
            "open_connections": "keep",
            "origin": "both",
            "out_interfaces": "uplinks",
            "per_source_stable": false,
            "persistent": false,
            "pick_up": "opening",
            "protocols": null,
            "random": true,
            "source_ports": [
              {
                "first": 1024,
                "last": 65535
              }
            ],
            "sources": [
              "10.0.0.0/8"
            ],
            "spread": null,
            "timeouts": null,
            "to_ports": [
              {
                "first": 1,
                "last": 9
              }
            ]
          }
        ]"#]]
    .assert_eq(&format!("{:#}", document.to_json()));
}

#[test]
fn names_of_policies_are_unique() {
    assert_eq!(
        Document::new(Vec::new()).unwrap_err().to_string(),
        "there is no policy: expected at least one"
    );
    let three = ["a", "b", "a"].map(policy).to_vec();
    assert_eq!(
        Document::new(three).unwrap_err().to_string(),
        "policies 1 and 3 are both named `a`: expected a name of its own for each"
    );
}

#[test]
fn policy_that_cannot_be_resolved_is_named() {
    let document = Document::new(vec![policy("builds")]).unwrap();
    assert_eq!(
        document.resolve(&HostFacts::default()).unwrap_err().to_string(),
        "policy `builds`: no uplink found: no interface has a default route; \
         name the interfaces, or use `any` for all of them"
    );
}

/// Two enforced policies of which the first translates only high ports.
#[test]
fn the_first_policy_in_scope_owns_the_connection() {
    let document: Document = r#"
        [[policy]]
        name = "first"
        out-interfaces = ["eth0"]
        source-ports = "40000-65535"
        to-ports = "50000-50009"
        enforce = true

        [[policy]]
        name = "second"
        out-interfaces = "any"
        to-ports = "60000-60009"
        enforce = true
    "#
    .parse()
    .unwrap();
    let policies = document.resolve(&HostFacts::default()).unwrap();
    let outcome = |flow: &str| {
        let outcome = evaluate(&policies, &flow.parse().unwrap());
        (outcome.matched.map(|matched| matched.index), outcome.non_matches.len())
    };
    assert_eq!(outcome("tcp 10.0.0.1:45000 -> 10.0.0.2:80 oif eth0"), (Some(0), 0));
    assert_eq!(outcome("tcp 10.0.0.1:30000 -> 10.0.0.2:80 oif eth0"), (Some(1), 1));
    assert_eq!(outcome("tcp 10.0.0.1:100 -> 10.0.0.2:80 oif eth0"), (None, 2));
    let out = |flow: &str, sent: u16| {
        permits(&policies, &flow.parse().unwrap(), CtState::New, Port::new(sent).unwrap())
    };
    let low = "tcp 10.0.0.1:30000 -> 10.0.0.2:80 oif eth0";
    // The second translates it, but the first enforces.
    assert!(out(low, 50_000) && !out(low, 60_000) && !out(low, 30_000) && out(low, 100));
    let other = "tcp 10.0.0.1:30000 -> 10.0.0.2:80 oif eth1";
    assert!(out(other, 60_000) && !out(other, 50_000));
    assert!(out("sctp 10.0.0.1:30000 -> 10.0.0.2:80 oif eth0", 30_000));
}

fn printable_policies() -> impl Strategy<Value = Policy> {
    let spec = (wide_policies(), block_tables(), any::<(bool, bool, bool)>());
    spec.prop_filter_map("parts that do not fit", |(policy, table, (uplinks, local, blocks))| {
        let mut spec = policy.spec().clone();
        if uplinks {
            spec.scope = Scope { out_interfaces: OutInterfaces::Uplinks, ..spec.scope };
        }
        match (local, blocks) {
            (true, _) => spec.target = Target::Local,
            (false, true) => spec.target = table.into(),
            (false, false) => {}
        }
        Policy::new(spec).ok()
    })
}

proptest! {
    #[test]
    fn printed_documents_parse_back(document in wide_documents()) {
        prop_assert_eq!(document.to_toml().parse(), Ok(document));
    }

    #[test]
    fn unresolved_policies_parse_back(policy in printable_policies()) {
        let document = Document::from(policy);
        prop_assert_eq!(document.to_toml().parse(), Ok(document));
    }

    #[test]
    fn first_translating_policy_matches(document in documents(), flow in flows()) {
        let policies = document.resolve(&HostFacts::default()).unwrap();
        let evaluation = evaluate(&policies, &flow);
        let decisions: Vec<_> = policies.iter().map(|policy| policy.decide(&flow)).collect();
        for passed in &evaluation.non_matches {
            prop_assert_eq!(&decisions[passed.index], &Decision::Untouched(passed.reason));
        }
        let matched = evaluation.matched.clone();
        let index = matched.as_ref().map_or(policies.len(), |matched| matched.index);
        prop_assert_eq!(evaluation.non_matches.len(), index);
        let translation = matched.map(|matched| Decision::Translated(matched.translation));
        prop_assert_eq!(decisions.get(index), translation.as_ref());
    }

    #[test]
    fn enforcing_policy_permits_its_own_translations(
        document in documents(), flow in flows(), port in ports()
    ) {
        let policies = document.resolve(&HostFacts::default()).unwrap();
        let owner = policies.iter().position(|policy| policy.out_of_scope(&flow).is_none());
        if let Some(matched) = evaluate(&policies, &flow).matched
            && owner == Some(matched.index)
        {
            let is_permitted = |port| permits(&policies, &flow, CtState::New, port);
            prop_assert!(matched.translation.ports.ports().all(is_permitted));
        }
        if policies.iter().all(|policy| !policy.enforce) || owner.is_none() {
            prop_assert!(permits(&policies, &flow, CtState::New, port));
        }
    }

    #[test]
    fn parsing_never_panics(text in "(\\[\\[policy\\]\\]\n|name|to-ports|=|\"[a-z0-9é-]{0,4}\"|\n|[ -~]){0,40}") {
        let _ = text.parse::<Document>();
    }

    /// A policy file of which one character is another.
    #[test]
    fn damaged_files_never_panic(document in documents(), at in any::<prop::sample::Index>(), c in any::<char>()) {
        let mut text: Vec<char> = document.to_toml().chars().collect();
        let at = at.index(text.len());
        text[at] = c;
        if let Err(error) = text.into_iter().collect::<String>().parse::<Document>() {
            prop_assert!(error.line >= 1 && error.column >= 1);
        }
    }
}
