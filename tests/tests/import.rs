//! `import`: other people's rules as a policy file.

use ephport_cli::Exit;
use ephport_tests::tool::ok;
use ephport_tests::{CommandOutput, Host, PolicyFile, ephport, ephport_ok, ephport_with_input};

const ONE_LINER: &str = "iptables -t nat -I POSTROUTING -p tcp -m tcp --sport 32768:61000 \
                         -j MASQUERADE --to-ports 49152-61000";

/// The policies of this file on a host, as the kernel has them.
fn applied(policies: &str) -> String {
    let (host, file) = (Host::new("host").unwrap(), PolicyFile::new(policies));
    host.link("eth0", &host, "eth1").unwrap();
    ephport_ok(&host, &format!("apply {}", file.path()));
    ok(&host, "nft list ruleset")
}

fn import(what: &str, input: &str) -> CommandOutput {
    let host = Host::new("host").unwrap();
    ephport_with_input(&host, &format!("import {what}"), input.as_bytes())
}

#[test]
fn the_one_liner_is_one_policy() {
    let policy = "[[policy]]\nname = \"imported-1\"\nprotocols = [\"tcp\"]\n\
                  out-interfaces = \"any\"\nfamilies = [\"ipv4\"]\n\
                  source-ports = \"32768-61000\"\nto-ports = \"49152-61000\"\npick-up = \"any\"\n";
    let ended = import(&format!("iptables -- {ONE_LINER}"), "");
    assert_eq!((ended.exit, ended.out.as_str(), ended.err.as_str()), (Exit::Success, policy, ""));
    let listed = applied(policy);
    let rule = "meta nfproto ipv4 tcp sport 32768-61000 counter packets 0 bytes 0 \
                masquerade to :49152-61000 comment \"imported-1\"";
    assert!(listed.contains(rule), "{listed}");
}

#[test]
fn a_dump_becomes_policies_and_the_rest_is_said_to_be_left_out() {
    let dump = "*nat\n:POSTROUTING ACCEPT [0:0]\n\
                -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n\
                -A POSTROUTING -o eth0 -p udp -m comment --comment dns -j MASQUERADE --to-ports 2000-2999 --random\n\
                -A POSTROUTING -p tcp -m mark --mark 0x1 -j MASQUERADE --to-ports 1024\n\
                -A POSTROUTING -s 10.0.0.0/8 -o eth0 -p tcp -j SNAT --to-source 192.0.2.1:3000-3999\n\
                COMMIT\n";
    let ended = import("iptables", dump);
    assert_eq!(
        ended.err,
        "left out: line 3: no ports: nothing for ephport to say: \
         `-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE`\n\
         left out: line 5: a policy cannot say match `mark`: \
         `-A POSTROUTING -p tcp -m mark --mark 0x1 -j MASQUERADE --to-ports 1024`\n"
    );
    assert_eq!(ended.exit, Exit::Success);
    let listed = applied(&ended.out);
    assert!(listed.contains("masquerade to :2000-2999 random comment \"dns\""), "{listed}");
    assert!(listed.contains("snat ip to 192.0.2.1:3000-3999 comment \"imported-1\""), "{listed}");
    // What is printed is a file that means the same.
    let file = PolicyFile::new(&ended.out);
    let host = Host::new("host").unwrap();
    assert_eq!(ephport_ok(&host, &format!("show --format toml {}", file.path())), ended.out);
}

#[test]
fn without_ports_there_is_nothing_to_import() {
    let none = "error: no rule was found that names the ports to masquerade to\n";
    let ended = import("iptables", "");
    assert_eq!((ended.exit, ended.out.as_str(), ended.err.as_str()), (Exit::Failure, "", none));
    let ended = import("iptables -- iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE", "");
    let left_out = "left out: line 1: no ports: nothing for ephport to say: \
                    `iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE`\n";
    assert_eq!((ended.exit, ended.err), (Exit::Failure, format!("{left_out}{none}")));
}

/// As `aws ec2 describe-network-acls` prints it: the custom network ACL of the *Amazon VPC User
/// Guide*, with these inbound entries besides.
fn acls(more: &str) -> String {
    let entry = |number: u32, cidr: &str, from: u16, to: u16| {
        format!(
            r#"{{ "CidrBlock": "{cidr}", "Egress": false, "Protocol": "6", "RuleAction": "allow",
                 "PortRange": {{ "From": {from}, "To": {to} }}, "RuleNumber": {number} }},"#
        )
    };
    let entries = [
        entry(100, "0.0.0.0/0", 80, 80),
        entry(120, "192.0.2.0/24", 22, 22),
        entry(140, "0.0.0.0/0", 32_768, 65_535),
    ];
    format!(
        r#"{{ "NetworkAcls": [ {{
            "Associations": [ {{ "NetworkAclAssociationId": "aclassoc-66ea5f0b",
                "NetworkAclId": "acl-9aeb5ef7", "SubnetId": "subnet-65ea5f08" }} ],
            "Entries": [ {} {more}
                {{ "CidrBlock": "0.0.0.0/0", "Egress": true, "Protocol": "-1",
                   "RuleAction": "deny", "RuleNumber": 32767 }},
                {{ "CidrBlock": "0.0.0.0/0", "Egress": false, "Protocol": "-1",
                   "RuleAction": "deny", "RuleNumber": 32767 }} ],
            "IsDefault": false, "NetworkAclId": "acl-9aeb5ef7", "Tags": [],
            "VpcId": "vpc-98eb5ef5" }} ] }}"#,
        entries.concat()
    )
}

#[test]
fn a_network_acl_lets_replies_in_to_its_client_ports() {
    let tcp = "[[policy]]\nname = \"ipv4-tcp-replies\"\nprotocols = [\"tcp\"]\n\
               families = [\"ipv4\"]\nto-ports = \"32768-65535\"\n";
    let notes = "note: acl-9aeb5ef7: rule 120: allow tcp to 22 from 192.0.2.0/24, \
                 which is some of the remote addresses and not all\n\
                 note: acl-9aeb5ef7: there is no port to which udp replies get through from all\n";
    let ended = import("nacl", &acls(""));
    assert_eq!((ended.exit, ended.out.as_str(), ended.err.as_str()), (Exit::Success, tcp, notes));
    // The same for both families and protocols is one policy.
    let both = r#"{ "CidrBlock": "0.0.0.0/0", "Egress": false, "Protocol": "-1",
                    "RuleAction": "allow", "RuleNumber": 150 },
                  { "Ipv6CidrBlock": "::/0", "Egress": false, "Protocol": "-1",
                    "RuleAction": "allow", "RuleNumber": 151 },"#;
    let ended = import("nacl", &acls(both));
    let one = "[[policy]]\nname = \"replies\"\nto-ports = \"1024-65535\"\n";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, one));
    // Remote networks of a family that nothing is allowed in for.
    let ended = import("nacl --remote 198.51.100.0/24,2001:db8::/32", &acls(""));
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, tcp));
    assert!(
        ended.err.ends_with(
            "note: over IPv6: acl-9aeb5ef7: \
             there is no port to which udp replies get through from all\n"
        ),
        "{}",
        ended.err
    );
}

#[test]
fn what_is_no_network_acl_or_allows_nothing_is_an_error() {
    let cases = [
        (
            acls("").replace("allow", "deny"),
            "error: no port from 1024 up is left that all replies get through to: \
             the network ACLs must allow some inbound",
        ),
        (
            "{".into(),
            "error: EOF while parsing an object at line 1 column 1: \
             expected what `aws ec2 describe-network-acls` prints",
        ),
        (
            acls("").replace("32768", "70000"),
            "error: .NetworkAcls[0].Entries[2]: PortRange from 70000 to 65535: \
             expected 0 <= From <= To <= 65535",
        ),
    ];
    for (input, message) in cases {
        let ended = import("nacl", &input);
        assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failure, ""));
        assert_eq!(ended.err.lines().last(), Some(message));
    }
    let ended = ephport_with_input(&Host::new("host").unwrap(), "import nacl", &[0xff]);
    let message = "error: cannot read standard input: byte 0 is not UTF-8\n";
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Failure, message));
}

#[test]
fn map_e_parameters_are_their_ports() {
    let host = Host::new("host").unwrap();
    let given = ephport_ok(&host, "import map-e psid=52,psid-len=8,offset=6");
    let head = "[[policy]]\nname = \"map-e\"\nfamilies = [\"ipv4\"]\nto-ports = \"1232-1235,";
    assert!(given.starts_with(head), "{given}");
    let derived = ephport_ok(
        &host,
        "import map-e ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,\
         delegated=2001:db8:12:3400::/56",
    );
    assert_eq!(derived, given);
    let ended = ephport(&host, "import map-e psid=300,psid-len=8");
    assert_eq!(ended.exit, Exit::Usage);
}
