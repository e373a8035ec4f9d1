//! `show --format sysctl`: the host's own sockets select from the permitted ports without NAT.

use std::fs;

use ephport_cli::Exit;
use ephport_core::PortSet;
use ephport_tests::{
    Connection, Host, PolicyFile, Protocol, Routed, SERVER_V4, SERVER_V6, Server, Source, connect,
    ephport, ephport_ok,
};

/// Sets what `show --format sysctl` prints, as `sysctl -p` does.
fn set(host: &Host, text: &str) {
    host.run(|| {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once(" =").expect("KEY = VALUE");
            let path = format!("/proc/sys/{}", key.replace('.', "/"));
            fs::write(&path, format!("{}\n", value.trim())).expect(&path);
        }
    });
}

#[test]
fn own_sockets_use_exactly_the_permitted_ports() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    for (permitted, text) in [("50000-50009,50020-50029", "50010-50019"), ("50000-50019", "")] {
        let printed =
            ephport_ok(&net.router, &format!("show --to-ports {permitted} --format sysctl"));
        let reserved = format!("ip_local_reserved_ports = {text}");
        assert!(printed.ends_with(&format!("{}\n", reserved.trim_end())), "{printed}");
        set(&net.router, &printed);
        let expected: PortSet = permitted.parse().unwrap();
        for (protocol, server) in [
            (Protocol::Tcp, SERVER_V4),
            (Protocol::Tcp, SERVER_V6),
            (Protocol::Udp, SERVER_V4),
            (Protocol::Udp, SERVER_V6),
        ] {
            let open: Vec<Connection> = net.router.run(|| {
                let to = std::net::SocketAddr::new(server, 443);
                (0..20).map(|_| connect(protocol, Source::Any, to).expect("connected")).collect()
            });
            let seen = open.iter().map(|connection| connection.seen.port());
            let seen: PortSet = seen
                .map(|port| ephport_core::PortRange::from(ephport_core::Port::new(port).unwrap()))
                .collect();
            assert_eq!(seen, expected, "{protocol} {server}");
        }
    }
}

#[test]
fn policies_without_one_local_set_are_refused() {
    let host = Host::new("host").unwrap();
    let two = "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nto-ports = \"1024\"\n\
               [[policy]]\nname = \"b\"\nout-interfaces = \"any\"\nto-ports = \"1025\"\n";
    let file = PolicyFile::new(two);
    let cases = [
        (
            "--to-ports 1024 -o any --origin forwarded",
            "no policy applies to this host's own sockets",
        ),
        ("--blocks 10.0.0.0/30=64@1024-2047 -o any", "policy default: blocks are no sysctl"),
        ("--to-ports 1-1023 -o any", "policy default: no port from 1024 up"),
        (file.path(), "policies a and b permit different ports"),
    ];
    for (policy, message) in cases {
        let ended = ephport(&host, &format!("show --format sysctl {policy}"));
        assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failure, ""), "{policy}");
        assert!(ended.err.contains(&format!("error: {message}")), "{}", ended.err);
    }
    // Privileged ports cannot be selected by the kernel.
    let text = ephport_ok(&host, "show --format sysctl --to-ports 500-2047 -o any");
    assert!(text.contains("\nnet.ipv4.ip_local_port_range = 1024 2047\n"), "{text}");
}
