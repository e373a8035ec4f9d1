//! Whole programs in nft's words, to the letter.

use ephport_core::{Document, HostFacts};
use ephport_nft::{TableState, compile};

/// The program of a document on a host whose uplink is `eth0`.
fn compiled(document: &str) -> TableState {
    let document: Document = document.parse().unwrap();
    let host = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
    compile(&document.resolve(&host).unwrap()).unwrap()
}

fn listing(policy: &str) -> String {
    compiled(&format!("[[policy]]\nname = \"a\"\n{policy}")).to_nft().to_string()
}

#[test]
fn one_range_and_its_enforcement() {
    let policy = r#"
        protocols = ["tcp"]
        families = ["ipv4"]
        sources = ["10.0.0.0/8"]
        except-destinations = ["192.0.2.0/24"]
        origin = "forwarded"
        to-ports = "49152-61000"
        fully-random = true
        enforce = true
    "#;
    let scope = "oifname \"eth0\" iif != 0 meta nfproto ipv4 ip daddr != 192.0.2.0/24";
    let expected = format!(
        r#"table inet ephport {{
	comment "ephport-nft"
	set a/open {{
		typeof ct id
		flags constant
	}}

	chain postrouting {{
		type nat hook postrouting priority srcnat - 10; policy accept;
		fib daddr type multicast return
		fib daddr . oif type broadcast return
		iif 0 fib saddr type != local return
		rt ipsec exists return
		{scope} ip saddr 10.0.0.0/8 meta l4proto tcp tcp flags & (fin | syn | rst | ack) == syn th sport 1024-65535 counter packets 0 bytes 0 masquerade to :49152-61000 fully-random comment "a"
	}}

	chain enforce {{
		type filter hook postrouting priority 300; policy accept;
		meta l4proto tcp th sport 49152-61000 return
		meta l4proto tcp th sport 1-1023 return
		ct direction reply return
		fib daddr type multicast return
		fib daddr . oif type broadcast return
		iif 0 ct status & snat == 0 fib saddr type != local return
		iif 0 ct state invalid,untracked fib saddr type != local return
		rt ipsec exists return
		meta oifkind "vrf" return
		{scope} ct original ip saddr 10.0.0.0/8 meta l4proto tcp jump a/enforce comment "a"
		ct state invalid,untracked {scope} ip saddr 10.0.0.0/8 meta l4proto tcp jump a/enforce comment "a"
	}}

	chain a/enforce {{
		ct status expected counter packets 0 bytes 0 accept
		ct status confirmed ct id @a/open counter packets 0 bytes 0 accept
		counter packets 0 bytes 0 drop
	}}
}}
"#
    );
    assert_eq!(unsigned(&listing(policy)), expected);
}

#[test]
fn timeouts_are_assigned_before_translation() {
    let policy = r#"
        families = ["ipv4"]
        map-e = "psid=1,psid-len=1,offset=0"
        destination-ports = "53,443"
        timeouts = { udp-unreplied = 60, udp-53-replied = 2, udp-80-replied = 2, tcp-close = 5 }
    "#;
    let expected = r#"table inet ephport {
	comment "ephport-nft"
	ct timeout a/tcp.close-5 {
		protocol tcp
		l3proto inet
		policy = { close : 5 }
	}

	ct timeout a/udp.unreplied-60 {
		protocol udp
		l3proto inet
		policy = { unreplied : 60 }
	}

	ct timeout a/udp.unreplied-60.replied-2 {
		protocol udp
		l3proto inet
		policy = { unreplied : 60, replied : 2 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat - 10; policy accept;
		fib daddr type multicast return
		fib daddr . oif type broadcast return
		iif 0 fib saddr type != local return
		rt ipsec exists return
		oifname "eth0" meta nfproto ipv4 meta l4proto tcp tcp flags & (fin | syn | rst | ack) == syn th dport { 53, 443 } th sport 1024-65535 ct timeout set "a/tcp.close-5" counter packets 0 bytes 0 masquerade to :32768-65535 comment "a"
		oifname "eth0" meta nfproto ipv4 meta l4proto udp th dport 53 th sport 1024-65535 ct timeout set "a/udp.unreplied-60.replied-2" counter packets 0 bytes 0 masquerade to :32768-65535 comment "a"
		oifname "eth0" meta nfproto ipv4 meta l4proto udp th dport { 53, 443 } th sport 1024-65535 ct timeout set "a/udp.unreplied-60" counter packets 0 bytes 0 masquerade to :32768-65535 comment "a"
	}
}
"#;
    assert_eq!(unsigned(&listing(policy)), expected);
}

/// The chain of the default address for a policy with these lines, where 198.51.100.1 is on loopback.
fn address_chain(lines: &str) -> Option<String> {
    let text = format!(
        "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nto-ports = \"49152-61000\"\n{lines}"
    );
    let document: Document = text.parse().unwrap();
    let kept_sources = vec!["198.51.100.1".parse().unwrap()];
    let mut host = HostFacts::default();
    host.kept_sources = kept_sources;
    let listing = compile(&document.resolve(&host).unwrap()).unwrap().to_nft().to_string();
    let (_, chain) = listing.split_once("chain a/address {\n")?;
    Some(chain.split_once("\t}").unwrap().0.replace("\t\t", ""))
}

#[test]
fn auto_has_a_rule_for_each_kind_of_source() {
    expect_test::expect![[r#"
        iif 0 fib saddr . oif type local goto a/keep
        iif 0 meta nfproto ipv4 ip saddr 198.51.100.1 goto a/keep
        iif 0 goto a/masquerade
        meta nfproto ipv4 ip saddr 10.0.0.0/8 goto a/masquerade
        meta nfproto ipv4 ip saddr 172.16.0.0/12 goto a/masquerade
        meta nfproto ipv4 ip saddr 192.168.0.0/16 goto a/masquerade
        meta nfproto ipv4 ip saddr 100.64.0.0/10 goto a/masquerade
        meta nfproto ipv4 ip saddr 169.254.0.0/16 goto a/masquerade
        meta nfproto ipv6 ip6 saddr fc00::/7 goto a/masquerade
        meta nfproto ipv6 ip6 saddr fe80::/10 goto a/masquerade
        goto a/keep
    "#]]
    .assert_eq(&address_chain("").unwrap());
}

#[test]
fn auto_has_no_rule_for_sources_out_of_scope() {
    expect_test::expect![[r#"
        iif 0 fib saddr . oif type local meta l4proto tcp snat to :49152-61000
        iif 0 fib saddr . oif type local meta l4proto udp snat to :49152-61000
        meta l4proto tcp masquerade to :49152-61000
        meta l4proto udp masquerade to :49152-61000
    "#]]
    .assert_eq(&address_chain("sources = [\"172.17.0.0/16\"]").unwrap());
    expect_test::expect![[r#"
        meta nfproto ipv4 ip saddr 10.0.0.0/8 meta l4proto tcp masquerade to :49152-61000
        meta nfproto ipv4 ip saddr 10.0.0.0/8 meta l4proto udp masquerade to :49152-61000
        meta l4proto tcp snat to :49152-61000
        meta l4proto udp snat to :49152-61000
    "#]]
    .assert_eq(&address_chain("origin = \"forwarded\"\nsources = [\"0.0.0.0/4\"]").unwrap());
    for lines in ["sources = [\"10.0.0.0/8\"]", "sources = [\"203.0.113.0/24\", \"2001:db8::/32\"]"]
    {
        assert_eq!(address_chain(&format!("origin = \"forwarded\"\n{lines}")), None, "{lines}");
    }
}

#[test]
fn several_ranges_by_the_source() {
    let policy = r#"
        protocols = ["udp"]
        to-ports = "1024-2047,4096-4103"
        per-source-stable = true
        address = "masquerade"
    "#;
    let expected = r#"table inet ephport {
	comment "ephport-nft"
	chain postrouting {
		type nat hook postrouting priority srcnat - 10; policy accept;
		fib daddr type multicast return
		fib daddr . oif type broadcast return
		iif 0 fib saddr type != local return
		rt ipsec exists return
		oifname "eth0" meta l4proto udp th sport 1024-65535 counter packets 0 bytes 0 goto a/ports comment "a"
	}

	chain a/1024-2047 {
		meta l4proto udp masquerade to :1024-2047
	}

	chain a/4096-4103 {
		meta l4proto udp masquerade to :4096-4103
	}

	chain a/ports {
		th sport 1024-2047 goto a/1024-2047
		meta nfproto ipv4 jhash ip saddr . th sport mod 1032 seed 0x1 vmap { 0-1023 : goto a/1024-2047, 1024-1031 : goto a/4096-4103 }
		meta nfproto ipv6 jhash ip6 saddr . th sport mod 1032 seed 0x1 vmap { 0-1023 : goto a/1024-2047, 1024-1031 : goto a/4096-4103 }
		goto a/1024-2047
	}
}
"#;
    assert_eq!(unsigned(&listing(policy)), expected);
}

#[test]
fn blocks_are_listed_with_their_selection() {
    for (address, target) in
        [("masquerade", "[ masq "), ("keep", "[ nat snat "), ("198.51.100.1", "[ nat snat ")]
    {
        let listing = listing(&format!(
            "families = [\"ipv4\"]\nfully-random = true\naddress = \"{address}\"\n\
             blocks = \"10.0.0.0/30=64@1024-65535\""
        ));
        let rules: Vec<_> =
            listing.lines().filter(|line| line.contains("set a/blocks4 dreg 1")).collect();
        // NF_NAT_RANGE_PROTO_SPECIFIED and NF_NAT_RANGE_PROTO_RANDOM_FULLY
        let is_meant = |rule: &&str| rule.contains(target) && rule.contains(" flags 0x12 ]");
        assert!(!rules.is_empty() && rules.iter().all(is_meant), "{listing}");
    }
}

/// As the kernel lists them.
#[test]
fn rules_are_listed_by_chain() {
    let policy =
        |name| format!("[[policy]]\nname = \"{name}\"\nenforce = true\nto-ports = \"1,9\"\n");
    let ruleset = compiled(&(policy("a") + &policy("b")));
    let mut chains: Vec<_> = ruleset.rules.iter().map(|rule| rule.chain.as_str()).collect();
    chains.dedup();
    let expected: Vec<_> = ruleset.chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(chains, expected);
}

/// Without the fingerprint, which names the version.
fn unsigned(listing: &str) -> String {
    let line = |line: &str| line.split(" comment \"ephport-nft").next().map(str::to_owned);
    let lines: Vec<_> = listing.lines().filter_map(line).collect();
    lines.join("\n") + "\n"
}
