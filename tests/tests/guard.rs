//! `guard`: the table stays or is restored whatever another process, the host, the policy file or a signal
//! does. Other processes are nft and this one; packets are judged on the wire.

use std::collections::HashSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ephport_cli::Exit;
use ephport_core::Document;
use ephport_nft::{Client, Installed, Plan, host};
use ephport_tests::guard::{Guard, GuardedFile, wait_until};
use ephport_tests::tool::{binary, nft_load, ok, tool};
use ephport_tests::wire::{Capture, Raw, Sender, plain, udp};
use ephport_tests::{
    CLIENT_V4, Host, ROUTER_V4, Routed, SERVER_V4, TempDir, compiled, ephport, host_with_uplink,
    installed,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const UDP: u8 = 17;

fn policy(ports: &str) -> String {
    format!("[[policy]]\nname = \"p\"\nout-interfaces = \"any\"\nto-ports = \"{ports}\"\n")
}

fn uplink_policy(ports: &str) -> String {
    format!("[[policy]]\nname = \"p\"\nto-ports = \"{ports}\"\n")
}

/// Whether the table of these policies is installed, whole.
fn is_installed(host: &Host, text: &str) -> bool {
    let document: Document = text.parse().unwrap();
    let plan = host.run(|| Plan::new(document.policies(), &host::facts().unwrap()));
    let found = installed(host);
    plan.is_ok_and(|plan| {
        found.is_from(&plan.table) && matches!(found, Installed::Ours { intact: true, .. })
    })
}

fn wait_for_table(host: &Host, guard: &Guard, text: &str) {
    wait_until(
        "the table of\n",
        || is_installed(host, text),
        || format!("{text}\n{}", guard.log()),
    );
}

/// A packet for each number, each of a new connection.
fn packet(number: u32) -> Raw {
    let port = |base: u32, count: u32| u16::try_from(base + number % count).unwrap();
    let (from, to) =
        ((CLIENT_V4, port(2000, 20_000)).into(), (SERVER_V4, port(1000, 60_001)).into());
    let bytes = plain(CLIENT_V4, SERVER_V4, UDP, &udp(from, to, &number.to_be_bytes()));
    Raw { name: String::new(), to: SERVER_V4, bytes }
}

/// What happened to packets during flushes.
struct Flushed {
    sent: usize,
    arrived: usize,
    leaked: usize,
    /// The longest time between a packet that left outside the range and the last one before it that did not.
    worst_gap: Duration,
    restores: usize,
    /// The longest time from the notice of a flush to the end of the restoration, as the guard logs it.
    slowest: Duration,
}

/// Flushes the ruleset `count` times while packets of new connections are forwarded.
fn flush_under_load(count: usize, args: &[&str]) -> Flushed {
    let net = Routed::new().unwrap();
    let file = GuardedFile::new(&policy("49152-61000"));
    let guard = Guard::applied(&net.router, &file, args);
    let mut capture = Capture::start(&net.server);
    let sender = Sender::new(&net.client);
    let is_over = AtomicBool::new(false);
    let (sent, mut packets) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                sent.push(Instant::now());
                let number = u32::try_from(sent.len() - 1).unwrap();
                sender.send(&packet(number)).unwrap();
                thread::sleep(Duration::from_micros(100));
            }
            sent
        });
        let mut packets = Vec::new();
        for restores in 1..=count {
            ok(&net.router, "nft flush ruleset");
            if !args.is_empty() {
                guard.wait_for("event=restored", restores);
            }
            packets.extend(capture.ready());
        }
        wait_for_table(&net.router, &guard, &policy("49152-61000"));
        is_over.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), packets)
    });
    packets.extend(capture.packets());
    let (mut arrived, mut leaked) = (0, 0);
    let (mut worst_gap, mut last_inside) = (Duration::ZERO, sent[0]);
    let mut seen = HashSet::new();
    for packet in packets.iter().filter(|packet| packet.protocol == UDP) {
        let number = u32::from_be_bytes(packet.transport[8..12].try_into().unwrap());
        if packet.destination != SERVER_V4 || !seen.insert(number) {
            continue;
        }
        arrived += 1;
        let time = sent[number as usize];
        let is_inside = packet.source == ROUTER_V4
            && packet.source_port.is_some_and(|port| (49152..=61000).contains(&port));
        if is_inside {
            last_inside = time;
        } else {
            leaked += 1;
            worst_gap = worst_gap.max(time.saturating_duration_since(last_inside));
        }
    }
    let log = guard.log();
    let restorations = log.lines().filter(|line| line.contains("event=restored"));
    let micros = |line: &str| line.split_once("microseconds=")?.1.split(' ').next()?.parse().ok();
    let times: Vec<u64> = restorations.map(|line| micros(line).unwrap()).collect();
    let slowest = Duration::from_micros(times.iter().copied().max().unwrap_or_default());
    Flushed { sent: sent.len(), arrived, leaked, worst_gap, restores: times.len(), slowest }
}

#[test]
fn owned_table_survives_flushes_under_load() {
    let Flushed { sent, arrived, leaked, restores, .. } = flush_under_load(200, &[]);
    println!("200 flushes of an owned table: {leaked} of {arrived} packets outside, {sent} sent");
    assert_eq!((leaked, restores), (0, 0));
    assert!(arrived > 200, "{arrived}");
}

#[test]
fn flushed_table_is_restored_under_load() {
    let flushed = flush_under_load(200, &["--no-owner"]);
    let Flushed { sent, arrived, leaked, worst_gap, restores, slowest } = flushed;
    println!(
        "200 flushes without ownership: {leaked} of {arrived} packets outside, {sent} sent; worst gap \
         {worst_gap:?}; {restores} restorations, the slowest {slowest:?} after its notice"
    );
    assert!(restores == 200 && arrived > leaked, "{restores} {arrived} {leaked}");
}

#[test]
fn owned_table_refuses_changes_and_names_its_owner() {
    let host = Host::new("host").unwrap();
    let file = GuardedFile::new(&policy("49152-61000"));
    let guard = Guard::applied(&host, &file, &[]);
    let refused = tool(&host, "nft", &["delete", "table", "inet", "ephport"], "");
    assert!(!refused.success && refused.err.contains("Operation not permitted"), "{refused:?}");
    let by = format!("error: `ephport-nft guard`, process {}, keeps the policy", guard.pid());
    for line in
        ["apply --to-ports 2000-2999 -o any", "apply --to-ports 2000-2999 -o any --confirm 9"]
    {
        let refused = ephport(&host, line);
        assert!(refused.exit == Exit::Failure && refused.err.starts_with(&by), "{}", refused.err);
    }
    assert!(ephport(&host, "remove").err.starts_with(&by));
    let second = ephport(&host, &format!("guard {}", file.path().display()));
    assert!(second.exit == Exit::Failure && second.err.starts_with(&by), "{}", second.err);
    // The library, which knows of no guard, names the port id: that of the guard's process.
    let other = compiled(&policy("2000-2999"));
    let error = host.run(|| Client::open().unwrap().apply(&other)).unwrap_err();
    let text = format!("table inet ephport is owned by netlink port id {}", guard.pid());
    assert!(error.to_string().starts_with(&text), "{error}");
    // What only reads works, and so does what changes nothing.
    let path = file.path();
    for (line, exit) in [
        ("status".to_string(), Exit::Success),
        (format!("usage {}", path.display()), Exit::Success),
        (format!("diff {}", path.display()), Exit::Success),
        (format!("apply {}", path.display()), Exit::Success),
        ("apply --to-ports 2000-2999 -o any --dry-run".into(), Exit::Success),
        ("diff --to-ports 2000-2999 -o any".into(), Exit::Differs),
    ] {
        let ended = ephport(&host, &line);
        assert_eq!(ended.exit, exit, "{line}: {}", ended.err);
    }
    assert!(is_installed(&host, &policy("49152-61000")));
}

#[test]
fn each_change_by_nft_is_restored() {
    let host = Host::new("host").unwrap();
    let file = GuardedFile::new(&policy("49152-61000"));
    let guard = Guard::applied(&host, &file, &["--no-owner"]);
    for (change, restores) in [
        "flush ruleset",
        "delete table inet ephport",
        "flush table inet ephport",
        "add rule inet ephport postrouting accept",
        "add chain inet ephport other",
        "add table inet ephport { flags dormant; }",
        "add counter inet ephport seen",
    ]
    .iter()
    .zip(1..)
    {
        ok(&host, &format!("nft {change}"));
        wait_for_table(&host, &guard, &policy("49152-61000"));
        guard.wait_for("event=restored", restores);
        guard.wait_for("thread_name=nft", restores);
    }
    // Another table is another program's business.
    nft_load(&host, "table ip other {\n}");
    ok(&host, "nft delete table ip other");
    let (status, log) = guard.end(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0));
    assert_eq!(log.matches("event=restored").count(), 7, "{log}");
}

#[test]
fn restored_table_continues_its_counters() {
    let net = Routed::new().unwrap();
    let file = GuardedFile::new(&policy("49152-61000"));
    let guard = Guard::applied(&net.router, &file, &["--no-owner", "--recheck", "1"]);
    let sender = Sender::new(&net.client);
    for number in 0..20 {
        sender.send(&packet(number)).unwrap();
    }
    let attempts =
        || installed(&net.router).table().map_or(0, |table| table.policies()[0].attempts);
    wait_until("20 attempts", || attempts() == 20, || attempts().to_string());
    // The counters are read at the next recheck.
    thread::sleep(Duration::from_millis(1500));
    ok(&net.router, "nft flush ruleset");
    guard.wait_for("event=restored", 1);
    assert_eq!(attempts(), 20);
}

#[test]
fn killed_guard_leaves_a_table_that_the_next_adopts() {
    let host = Host::new("host").unwrap();
    let file = GuardedFile::new(&policy("49152-61000"));
    let guard = Guard::applied(&host, &file, &[]);
    let handle = |host: &Host| installed(host).table().unwrap().table.handle;
    let before = handle(&host);
    assert_eq!(guard.end(Signal::SIGKILL).0.code(), None);
    assert!(is_installed(&host, &policy("49152-61000")), "the table outlives its owner");
    assert_eq!(ephport(&host, "status").exit, Exit::Success);
    let guard = Guard::applied(&host, &file, &[]);
    assert_eq!(handle(&host), before, "the same table");
    assert!(!tool(&host, "nft", &["delete", "table", "inet", "ephport"], "").success);
    drop(guard);
    // Without a guard it is a table as any other.
    assert!(ephport(&host, "apply --to-ports 2000-2999 -o any").exit == Exit::Success);
    let _guard = Guard::applied(&host, &file, &[]);
    assert!(is_installed(&host, &policy("49152-61000")));
}

#[test]
fn end_leaves_or_removes_the_table() {
    for (args, stays) in [(&[][..], true), (&["--remove-at-exit"], false)] {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
            let host = Host::new("host").unwrap();
            let file = GuardedFile::new(&policy("49152-61000"));
            let (status, log) = Guard::applied(&host, &file, args).end(signal);
            assert_eq!(status.code(), Some(0));
            let expected = format!("event=stopped cause={signal}");
            assert!(log.contains(&expected), "{log}");
            assert_eq!(is_installed(&host, &policy("49152-61000")), stays, "{signal}");
        }
    }
}

#[test]
fn changed_file_is_applied_and_bad_one_is_not() {
    let host = Host::new("host").unwrap();
    let file = GuardedFile::new(&policy("1000-1999"));
    let guard = Guard::applied(&host, &file, &[]);
    file.write(&policy("2000-2999"));
    wait_for_table(&host, &guard, &policy("2000-2999"));
    // In place.
    fs::write(file.path(), policy("3000-3999")).unwrap();
    wait_for_table(&host, &guard, &policy("3000-3999"));
    for (bad, count) in [("[[policy]]\nname = 1", 1), ("", 2), ("no TOML", 3)] {
        file.write(bad);
        guard.wait_for("event=failed cause=file kind=file", count);
    }
    fs::remove_file(file.path()).unwrap();
    guard.wait_for("event=failed cause=file kind=file", 4);
    assert!(is_installed(&host, &policy("3000-3999")), "the former policy stays");
    file.write(&policy("4000-4999"));
    wait_for_table(&host, &guard, &policy("4000-4999"));
    // As Kubernetes replaces a ConfigMap: by a link to a directory.
    let at = |name: &str| file.directory().join(name);
    for (version, ports) in [("v1", "5000-5999"), ("v2", "6000-6999")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("policy.toml"), policy(ports)).unwrap();
        std::os::unix::fs::symlink(version, at("data.new")).unwrap();
        fs::rename(at("data.new"), at("data")).unwrap();
        if version == "v1" {
            std::os::unix::fs::symlink("data/policy.toml", at("new")).unwrap();
            fs::rename(at("new"), file.path()).unwrap();
        }
        wait_for_table(&host, &guard, &policy(ports));
    }
    guard.signal(Signal::SIGHUP);
    guard.wait_for("event=applied cause=signal result=unchanged", 1);
}

#[test]
fn file_of_blocks_is_followed() {
    let host = Host::new("host").unwrap();
    let file = GuardedFile::new("");
    let at = |name: &str| file.directory().join(name);
    let policy = |key: &str| format!("[[policy]]\nname = \"p\"\nout-interfaces = \"any\"\n{key}\n");
    let write = |name: &str, first: &str| {
        fs::write(at("written"), format!("10.0.0.1,192.0.2.1,{first},9999\n")).unwrap();
        fs::rename(at("written"), at(name)).unwrap();
    };
    let inline = |first: &str| policy(&format!("blocks = \"10.0.0.1=192.0.2.1:{first}-9999\""));
    fs::create_dir(at("sub")).unwrap();
    write("sub/b.csv", "1000");
    file.write(&policy("blocks-file = \"sub/b.csv\""));
    let guard = Guard::applied(&host, &file, &[]);
    wait_for_table(&host, &guard, &inline("1000"));
    write("sub/b.csv", "2000");
    wait_for_table(&host, &guard, &inline("2000"));
    // In place.
    fs::write(at("sub/b.csv"), "10.0.0.1,192.0.2.1,3000,9999").unwrap();
    wait_for_table(&host, &guard, &inline("3000"));
    fs::remove_file(at("sub/b.csv")).unwrap();
    guard.wait_for("event=failed cause=file kind=file", 1);
    write("sub/b.csv", "4000");
    wait_for_table(&host, &guard, &inline("4000"));
    write("other.csv", "5000");
    file.write(&policy("blocks-file = \"other.csv\""));
    wait_for_table(&host, &guard, &inline("5000"));
}

#[test]
fn uplinks_addresses_and_local_ports_are_followed() {
    let (host, peer) = (Host::new("host").unwrap(), Host::new("peer").unwrap());
    host.sysctl("net/ipv4/ip_local_port_range", "20000 29999").unwrap();
    let text = "[[policy]]\nname = \"p\"\nto-ports = \"local\"\n";
    let file = GuardedFile::new(text);
    let guard = Guard::start(&host, &file, &["--recheck", "1"]);
    guard.wait_for("event=failed cause=start", 1);
    assert!(matches!(installed(&host), Installed::Absent));
    for link in ["eth0", "eth1"] {
        host.link(link, &peer, link).unwrap();
    }
    host.address("eth0", "192.0.2.2/24").unwrap();
    host.address("eth1", "198.51.100.2/24").unwrap();
    let route = |line: &str| drop(ok(&host, &format!("ip route {line}")));
    route("add default via 192.0.2.1");
    guard.wait_for("event=applied cause=host", 1);
    wait_for_table(&host, &guard, text);
    route("add default via 198.51.100.1 metric 50");
    wait_for_table(&host, &guard, text);
    route("del default via 192.0.2.1");
    wait_for_table(&host, &guard, text);
    ok(&host, "ip link set eth1 name wan9");
    wait_for_table(&host, &guard, text);
    // An address that `auto` keeps.
    ok(&host, "ip address add 203.0.113.77/32 dev lo");
    wait_for_table(&host, &guard, text);
    // A sysctl has no notification.
    host.sysctl("net/ipv4/ip_local_reserved_ports", "25000-25010").unwrap();
    wait_for_table(&host, &guard, text);
    guard.wait_for("event=applied cause=recheck", 1);
    // Without an uplink the last table stays.
    ok(&host, "ip link set wan9 down");
    guard.wait_for("event=failed cause=host kind=policy", 1);
    assert_eq!(ephport(&host, "status").out.lines().next().map(|line| &line[..4]), Some("void"));
}

#[test]
fn service_manager_is_notified() {
    let host = Host::new("host").unwrap();
    let file = GuardedFile::new(&policy("1000-1999"));
    let path = file.directory().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let mut command = Command::new(binary());
    command.arg("guard").arg(file.path()).env("NOTIFY_SOCKET", &path);
    command.env("WATCHDOG_USEC", "100000").env_remove("WATCHDOG_PID");
    let guard = Guard::spawn(&host, &file, command);
    guard.wait_for("event=applied", 1);
    let expect = |text: &str| {
        let end = Instant::now() + Duration::from_secs(20);
        while !messages_until(&socket, text) {
            assert!(Instant::now() < end, "no {text}");
        }
    };
    expect("READY=1\nSTATUS=1 policies installed, 0 times restored");
    expect("WATCHDOG=1");
    guard.signal(Signal::SIGHUP);
    expect("RELOADING=1\nMONOTONIC_USEC=");
    expect("READY=1\nSTATUS=1 policies");
    file.write("bad");
    expect("STATUS=1 policies installed, 0 times restored; ");
    guard.signal(Signal::SIGTERM);
    expect("STOPPING=1");
}

/// Whether a message with this text comes soon.
fn messages_until(socket: &UnixDatagram, text: &str) -> bool {
    let mut buffer = [0; 4096];
    while let Ok(len) = socket.recv(&mut buffer) {
        if String::from_utf8_lossy(&buffer[..len]).contains(text) {
            return true;
        }
    }
    false
}

#[test]
fn metrics_file_is_always_whole() {
    let host = Host::new("host").unwrap();
    let text = format!("{}enforce = true\n", policy("1000-1999"));
    let file = GuardedFile::new(&text);
    let path = file.directory().join("ephport.prom");
    let metrics = path.to_str().unwrap();
    let guard = Guard::applied(&host, &file, &["--no-owner", "--metrics", metrics]);
    let read = || fs::read_to_string(&path).unwrap_or_default();
    wait_until("metrics", || !read().is_empty(), read);
    for count in 1..4 {
        ok(&host, "nft flush ruleset");
        guard.wait_for("event=restored", count);
    }
    file.write("bad");
    let restored = "\nephport_restores_total 3\n";
    wait_until(
        "restores",
        || read().contains(restored),
        || {
            assert!(read().ends_with("# EOF\n"), "{}", read());
            read()
        },
    );
    file.write(&policy("2000-2999"));
    guard.wait_for("event=applied", 2);
    let success = "ephport_reloads_total{result=\"success\"} 1\n";
    wait_until("a reload", || read().contains(success), read);
    for line in [
        "ephport_policy_intact 1\n",
        "ephport_policy_ports{policy=\"p\"} 1000\n",
        "ephport_reloads_total{result=\"failure\"} 1\n",
        "ephport_table_owned 0\n",
        "ephport_conntrack_entries 0\n",
    ] {
        assert!(read().contains(line), "{line}{}", read());
    }
    // Each is in the documentation.
    let page = include_str!("../../docs/metrics.md");
    for name in read().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn metrics_file_that_cannot_be_written_is_reported_once() {
    let host = Host::new("host").unwrap();
    let file = GuardedFile::new(&policy("1000-1999"));
    let args = ["--no-owner", "--recheck", "1", "--metrics", "/absent/metrics"];
    let guard = Guard::applied(&host, &file, &args);
    guard.wait_for("cannot write to /absent/metrics", 1);
    ok(&host, "nft flush ruleset");
    guard.wait_for("event=restored", 1);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(guard.log().matches("cannot write to").count(), 1, "{}", guard.log());
}

/// The states that a kill may cause.
const WHOLE: [&str; 2] = ["1000-1999", "2000-2999,4000-4999"];

fn is_whole_or_absent(host: &Host) -> bool {
    match installed(host) {
        Installed::Absent => true,
        found => WHOLE.iter().any(|ports| {
            found.is_from(&compiled(&policy(ports)))
                && matches!(found, Installed::Ours { intact: true, .. })
        }),
    }
}

/// Random numbers, the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Kills guards at random moments of their start, reloads and restorations.
fn kill_at_random(seed: u64, rounds: u32) -> [usize; 2] {
    let mut random = Random(seed);
    let host = Host::new("host").unwrap();
    let mut found = [0, 0];
    for round in 0..rounds {
        let args: &[&str] = if round % 2 == 0 { &[] } else { &["--no-owner"] };
        let file = GuardedFile::new(&policy(WHOLE[0]));
        let mut command = Command::new(binary());
        command.arg("guard").arg(file.path()).args(args);
        let guard = Guard::spawn(&host, &file, command);
        let lifetime = Duration::from_micros(random.below(60_000));
        let end = Instant::now() + lifetime;
        let mut turn = 0;
        while Instant::now() < end {
            turn += 1;
            file.write(&policy(WHOLE[turn % 2]));
            if random.below(3) == 0 {
                drop(tool(&host, "nft", &["flush", "ruleset"], ""));
            }
        }
        guard.end(Signal::SIGKILL);
        assert!(is_whole_or_absent(&host), "seed {seed}, round {round}");
        found[usize::from(matches!(installed(&host), Installed::Absent))] += 1;
        if random.below(2) == 0 {
            ok(&host, "nft flush ruleset");
        }
    }
    found
}

#[test]
fn killed_guard_leaves_a_whole_table_or_none() {
    let found: Vec<_> = thread::scope(|scope| {
        let start = |seed| scope.spawn(move || kill_at_random(seed, 50));
        let threads: Vec<_> = (1..=4).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let [whole, absent] =
        found.iter().fold([0, 0], |[w, a], [whole, absent]| [w + whole, a + absent]);
    println!("200 kills: {whole} times a whole table, {absent} times none");
    assert!(whole > 20 && whole + absent == 200, "{whole} {absent}");
}

/// The memory of a process, in KiB.
fn resident(process: impl std::fmt::Display) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A part of the day: events of each kind, and at the end another host and another policy.
fn part_of_day(host: &Host, file: &GuardedFile, guard: &Guard, part: u32) {
    let uplink = ["eth0", "eth1"][part as usize % 2];
    let other = ["eth1", "eth0"][part as usize % 2];
    let change = |i: u32| {
        format!(
            "address add 10.9.{i}.1/32 dev lo\naddress del 10.9.{i}.1/32 dev lo\n\
             route add 10.8.{i}.0/24 dev {uplink}\nroute del 10.8.{i}.0/24 dev {uplink}\n\
             route replace default dev {other}\nroute replace default dev {uplink}\n"
        )
    };
    let link = |i: u32| {
        format!("link add v{i} type veth peer name w{i}\nlink set v{i} up\nlink del v{i}\n")
    };
    let address = format!("address replace 203.0.113.{part}/32 dev lo\n");
    let batch: String = (0..100).map(change).chain((0..10).map(link)).chain([address]).collect();
    let ended = tool(host, "ip", &["-batch", "-"], &batch);
    assert!(ended.success, "{ended:?}");
    for i in 0..10 {
        file.write(&uplink_policy(&format!("{}-{}", 2000 + i, 3000 + part)));
        guard.signal(Signal::SIGHUP);
        nft_load(host, "table ip other {\n}\ndelete table ip other\n");
        ok(host, "nft flush ruleset");
    }
    file.write("bad");
    file.write(&uplink_policy(&format!("20000-{}", 30_000 + part)));
    wait_for_table(host, guard, &uplink_policy(&format!("20000-{}", 30_000 + part)));
}

/// 20 parts of 631 changes of links, addresses and routes, 12 files, 10 signals and 20 commits each.
fn day(args: &[&str]) {
    let (host, peer) = host_with_uplink();
    host.link("eth1", &peer, "eth1").unwrap();
    let file = GuardedFile::new(&uplink_policy("1000-1999"));
    let guard = Guard::applied(&host, &file, args);
    let mut memory = Vec::new();
    for part in 1..=20 {
        part_of_day(&host, &file, &guard, part);
        memory.push(resident(guard.pid()));
    }
    let (early, late) = (memory[4], memory[19]);
    println!("{args:?}: VmRSS {early} KiB after 5 parts of the day, {late} KiB after 20");
    assert!(late <= early + 512, "{memory:?}");
    let (status, log) = guard.end(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{log}");
    let restores = log.matches("event=restored").count();
    assert_eq!(restores > 0, !args.is_empty(), "{restores} restorations");
}

#[test]
fn day_in_fast_motion_with_an_owned_table() {
    day(&[]);
}

#[test]
fn day_in_fast_motion_with_restorations() {
    day(&["--no-owner"]);
}

#[test]
fn log_lines_are_json_where_asked() {
    let host = Host::new("host").unwrap();
    let file = GuardedFile::new(&policy("1000-1999"));
    let mut command = Command::new(binary());
    command.args(["guard", "--json", "--no-owner"]).arg(file.path());
    let guard = Guard::spawn(&host, &file, command);
    guard.wait_for("\"applied\"", 1);
    ok(&host, "nft flush ruleset");
    guard.wait_for("\"restored\"", 1);
    let (_, log) = guard.end(Signal::SIGTERM);
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["started", "applied", "restored", "stopped"]);
    assert_eq!(events[2]["thread_name"], "nft");
    assert_eq!(events[2]["restores"], 1);
}

#[test]
fn interfering_table_is_reported() {
    let host = Host::new("host").unwrap();
    let file = GuardedFile::new(&policy("1000-1999"));
    let guard = Guard::applied(&host, &file, &["--recheck", "1"]);
    nft_load(
        &host,
        "table ip early {\n chain c {\n type nat hook postrouting priority 50; masquerade\n }\n}",
    );
    guard.wait_for("event=interference kind=earlier-nat", 1);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(guard.log().matches("event=interference").count(), 1, "it is reported once");
}

#[test]
fn guard_needs_a_file_that_is_right() {
    let host = Host::new("host").unwrap();
    let directory = TempDir::new();
    let path = directory.path().join("absent.toml");
    let ended = ephport(&host, &format!("guard {}", path.display()));
    assert_eq!(ended.exit, Exit::Failure);
    assert!(ended.err.contains("cannot read"), "{}", ended.err);
}
