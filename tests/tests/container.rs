//! The image of `packaging/docker`: nothing but the static binary, which guards the network of its host with one
//! capability. The judges are Docker and real packets.

use std::fs;
use std::path::Path;
use std::process::Command;

use ephport_nft::Installed;
use ephport_tests::docker::{Dockerd, Iptables};
use ephport_tests::guard::wait_until;
use ephport_tests::tool::tool;
use ephport_tests::{Protocol, Routed, SERVER_V4, Server, TempDir, installed, seen};

/// The path of the static binary, after it is built.
fn static_binary() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut command = Command::new(root.join("packaging/static"));
    let built = command.arg("--debug").output().expect("packaging/static");
    let path = String::from_utf8(built.stdout).expect("UTF-8");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    root.join(path.trim()).to_str().expect("UTF-8").into()
}

#[test]
fn container_with_one_capability_guards_its_host() {
    let binary = static_binary();
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    let libraries = tool(&net.router, "ldd", &[&binary], "").out;
    assert!(!libraries.contains("=>"), "the binary is static: {libraries}");
    let context = TempDir::new();
    fs::copy(binary, context.path().join("ephport-nft")).unwrap();
    let dockerfile = include_str!("../../packaging/docker/Dockerfile");
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let etc = TempDir::new();
    let policy = "[[policy]]\nname = \"all\"\nto-ports = \"49152-61000\"\n";
    fs::write(etc.path().join("policy.toml"), policy).unwrap();

    let dockerd = Dockerd::start(&net.router, Iptables::Nft, &["--bip=172.31.5.1/24"]);
    dockerd.ok(&format!("build --quiet --tag ephport-nft {}", context.path().display()));
    dockerd.ok(&format!(
        "run --detach --name guard --network host --cap-drop ALL --cap-add NET_ADMIN \
         --volume {}:/etc/ephport:ro ephport-nft",
        etc.path().display()
    ));
    let is_installed = || matches!(installed(&net.router), Installed::Ours { intact: true, .. });
    wait_until("the table", is_installed, || {
        let logs = dockerd.docker(&["logs", "guard"], "");
        format!("{logs:?}")
    });
    let port = seen(&net.client, Protocol::Tcp, 2000, (SERVER_V4, 443).into()).port();
    assert!((49152..=61000).contains(&port), "{port}");
    // The guard owns the table, and the program answers in its container.
    let refused = tool(&net.router, "nft", &["delete", "table", "inet", "ephport"], "");
    assert!(!refused.success);
    assert!(dockerd.ok("exec guard /ephport-nft status").starts_with("intact"));
    dockerd.ok("stop guard");
    let state = dockerd.ok("inspect --format {{.State.ExitCode}} guard");
    assert_eq!(state.trim(), "0", "SIGTERM ends it");
    assert!(is_installed());
}
