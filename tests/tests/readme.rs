//! What the README shows is what the commands print.

use ephport_tests::{Host, ephport};

/// A host with an uplink of the README's name.
fn host(peer: &Host) -> Host {
    let host = Host::new("host").unwrap();
    host.link("eth0", peer, "eth0").unwrap();
    host.address("eth0", "192.0.2.2/24").unwrap();
    host.route("default", "192.0.2.1").unwrap();
    host
}

#[test]
fn every_command_of_the_readme_prints_what_it_shows() {
    let peer = Host::new("peer").unwrap();
    let host = host(&peer);
    let readme = include_str!("../../README.md");
    let blocks: Vec<_> = readme.split("```console\n").skip(1).collect();
    assert!(blocks.len() >= 5);
    for block in blocks {
        let (block, _) = block.split_once("```").expect("the block's end");
        let (command, shown) = block.split_once('\n').expect("a command");
        let line = command.strip_prefix("# ephport-nft ").expect("a command of ours");
        let ended = ephport(&host, line);
        assert_eq!((ended.out.as_str(), ended.err.as_str()), (shown, ""), "{command}");
    }
}
