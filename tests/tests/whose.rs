//! Which source had a port: the policy's answer is what real connections get.

use ephport_cli::Exit;
use ephport_tests::{
    Host, PolicyFile, Protocol, Routed, SERVER_V4, Server, connect, ephport, ephport_ok,
};
use serde_json::{Value, json};

#[test]
fn answer_is_the_source_of_a_real_connection() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    let policy = "--blocks 10.77.1.0/24=200@1024-65535";
    ephport_ok(&net.router, &format!("apply {policy}"));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let seen = net.client.run(|| connect(protocol, 40_000, (SERVER_V4, 443))).unwrap().seen;
        let found = ephport_ok(&net.router, &format!("whose {seen} {policy}"));
        assert_eq!(found, "10.77.1.2  policy default: ports 1424-1623, tcp,udp\n");
    }
}

#[test]
fn addresses_and_policies_narrow_the_answer() {
    let file = PolicyFile::new(
        "[[policy]]\nname = \"a\"\nprotocols = [\"tcp\"]\n\
         blocks = \"10.0.0.0/30=100@203.0.113.8/31:1024-1223\"\n\
         [[policy]]\nname = \"b\"\nprotocols = [\"udp\"]\nblocks = \"10.0.1.0/30=50@1024-1223\"\n\
         [[policy]]\nname = \"c\"\nto-ports = \"40000-50000\"\n",
    );
    let host = Host::new("host").unwrap();
    let whose = |endpoint: &str| {
        let ended = ephport(&host, &format!("whose {endpoint} {}", file.path()));
        (ended.exit, ended.out)
    };
    let b = "10.0.1.1  policy b: ports 1074-1123, udp\n";
    let cases = [
        (
            "203.0.113.8:1100",
            Exit::Success,
            format!("10.0.0.0  policy a: ports 1024-1123, tcp\n{b}"),
        ),
        (
            "203.0.113.9:1100",
            Exit::Success,
            format!("10.0.0.2  policy a: ports 1024-1123, tcp\n{b}"),
        ),
        ("203.0.113.10:1100", Exit::Success, b.into()),
        (
            "203.0.113.8:40000",
            Exit::Differs,
            "no source: port 40000 of 203.0.113.8 is in no block\n".into(),
        ),
        (
            "[2001:db8::1]:1100",
            Exit::Differs,
            "no source: port 1100 of 2001:db8::1 is in no block\n".into(),
        ),
        (
            "203.0.113.8:0",
            Exit::Differs,
            "no source: port 0 of 203.0.113.8 is in no block\n".into(),
        ),
    ];
    for (endpoint, exit, out) in cases {
        assert_eq!(whose(endpoint), (exit, out), "{endpoint}");
    }
    assert_eq!(whose("203.0.113.8").0, Exit::Usage);
}

#[test]
fn policies_without_blocks_have_no_answer() {
    let host = Host::new("host").unwrap();
    let ended = ephport(&host, "whose 203.0.113.8:50000 --to-ports 49152-61000");
    let expected = "no source: no policy has blocks, so all sources share its ports\n";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Differs, expected));
}

#[test]
fn programs_get_numbers() {
    let host = Host::new("host").unwrap();
    let line = "whose 203.0.113.8:1100 --json --blocks 10.0.0.0/22=63@1024-65535";
    let document: Value = serde_json::from_str(&ephport_ok(&host, line)).unwrap();
    let source = json!({
        "policy": "default",
        "source": "10.0.0.1",
        "outside": null,
        "ports": [{ "first": 1087, "last": 1149 }],
        "protocols": ["tcp", "udp"],
    });
    let asked = json!({ "address": "203.0.113.8", "port": 1100 });
    assert_eq!(document, json!({ "version": 1, "sent_as": asked, "sources": [source] }));
}

#[test]
fn source_is_found_among_a_million() {
    let host = Host::new("host").unwrap();
    // 1,048,576 sources, 64 for each outside address.
    let line = "whose 198.51.10.0:1100 --blocks 10.0.0.0/12=1000@198.51.0.0/16:1024-65535";
    let expected = "10.2.128.0  policy default: ports 1024-2023, tcp,udp\n";
    assert_eq!(ephport_ok(&host, line), expected);
}
