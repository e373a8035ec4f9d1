//! Helpers of the tests in `tests/`, which make networks with [`ephport_cli::lab`].
//!
//! The tests require root, or any user under `unshare -Ur`, and change nothing in the machine's own
//! network.
#![forbid(unsafe_code)]

pub mod conntrack;
pub mod docker;
pub mod guard;
pub mod markdown;
pub mod outcome;
pub mod random;
pub mod strace;
pub mod tool;
pub mod wire;

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, io, iter, thread};

pub use ephport_cli::lab::*;
use ephport_cli::{Exit, run};
use ephport_core::policy::value::Files;
use ephport_core::{Document, HostFacts};
use ephport_nft::{Applied, Client, Installed, TableState, compile};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// TCP and UDP with each of the server's addresses of [`Routed`].
#[must_use]
pub fn protocols_and_servers() -> [(Protocol, IpAddr); 4] {
    [
        (Protocol::Tcp, SERVER_V4),
        (Protocol::Tcp, SERVER_V6),
        (Protocol::Udp, SERVER_V4),
        (Protocol::Udp, SERVER_V6),
    ]
}

/// The address of the same family as `like`.
#[must_use]
pub fn of_family(like: IpAddr, v4: IpAddr, v6: IpAddr) -> IpAddr {
    if like.is_ipv4() { v4 } else { v6 }
}

/// The source of a new connection from `host`, as the server saw it.
///
/// # Panics
/// When the connection fails.
#[must_use]
pub fn seen(
    host: &Host,
    protocol: Protocol,
    from: impl Into<Source>,
    to: SocketAddr,
) -> SocketAddr {
    let from = from.into();
    host.run(|| connect(protocol, from, to)).expect("a connection").seen
}

/// Runs `work` in a thread that can open no more files and sockets.
///
/// # Panics
/// When `work` panics, or when the thread cannot unshare its table of descriptors.
pub fn without_descriptors<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // Quick to exhaust, and enough for the other threads of this process.
    const LIMIT: rlim_t = 4096;
    let full = || {
        unshare(CloneFlags::CLONE_FILES).expect("a table of descriptors of its own");
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(LIMIT), hard).expect("a lower limit");
        let null = File::open("/dev/null").expect("/dev/null");
        let _taken: Vec<_> = iter::from_fn(|| null.try_clone().ok()).collect();
        work()
    };
    thread::scope(|scope| scope.spawn(full).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// The exit status and the output of a command line of `ephport-nft`.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit status.
    pub exit: Exit,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a command line of `ephport-nft` on `host`, in this process. The line is split at spaces.
///
/// # Panics
/// When the output is not UTF-8.
#[must_use]
pub fn ephport(host: &Host, line: &str) -> CommandOutput {
    ephport_args(host, line.split_whitespace(), b"")
}

/// Runs a command line of `ephport-nft` on `host` with `input` on standard input.
///
/// # Panics
/// When the output is not UTF-8.
#[must_use]
pub fn ephport_with_input(host: &Host, line: &str, input: &[u8]) -> CommandOutput {
    ephport_args(host, line.split_whitespace(), input)
}

/// Runs `ephport-nft` on `host` with these arguments, which may contain spaces.
///
/// # Panics
/// When the output is not UTF-8.
#[must_use]
pub fn ephport_args<'a>(
    host: &Host,
    words: impl IntoIterator<Item = &'a str, IntoIter: Send>,
    mut input: &[u8],
) -> CommandOutput {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = ["ephport-nft"].into_iter().chain(words).map(Into::into);
    let exit = host.run(|| run(words, &mut input, &mut out, &mut err));
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    CommandOutput { exit, out: text(out), err: text(err) }
}

/// Runs a command line of `ephport-nft` on `host` that must succeed; returns standard output.
///
/// # Panics
/// When it fails.
pub fn ephport_ok(host: &Host, line: &str) -> String {
    let ended = ephport(host, line);
    assert_eq!(ended.exit, Exit::Success, "{line}: {}", ended.err);
    ended.out
}

/// Publishes the client's `port` as `published` of the router's uplink, as a container engine does.
///
/// # Panics
/// When nft refuses it.
pub fn publish(router: &Host, published: u16, port: u16) {
    tool::nft_load(
        router,
        &format!(
            "table ip publish {{\n chain prerouting {{\n \
             type nat hook prerouting priority dstnat; policy accept;\n \
             iifname \"wan0\" meta l4proto {{ tcp, udp }} th dport {published} \
             dnat to {CLIENT_V4}:{port}\n }}\n}}\n"
        ),
    );
}

/// The number of packets that the enforcing rules of `router` have dropped.
///
/// # Panics
/// When `status` reports no counters.
#[must_use]
pub fn dropped(router: &Host) -> u64 {
    // A nat chain of another tool before ours makes the policy void; its counters are there all the same.
    let status = ephport(router, "status --json");
    let is_read = matches!(status.exit, Exit::Success | Exit::Differs);
    assert!(is_read, "status --json: {}", status.err);
    let status: serde_json::Value = serde_json::from_str(&status.out).expect("JSON");
    let rules = status["rules"].as_array().expect("rules");
    let drops = rules.iter().filter(|rule| {
        let is_enforcing = rule["chain"].as_str().is_some_and(|chain| chain.contains("enforce"));
        is_enforcing && rule["nft"].as_str().is_some_and(|nft| nft.contains(" drop"))
    });
    drops.map(|rule| rule["packets"].as_u64().expect("a counter")).sum()
}

/// A host whose uplink is `eth0`, and the peer of this link.
///
/// # Panics
/// When they cannot be made.
#[must_use]
pub fn host_with_uplink() -> (Host, Host) {
    let (host, peer) = (Host::new("host").expect("a host"), Host::new("peer").expect("a peer"));
    host.link("eth0", &peer, "eth0").expect("a link");
    host.address("eth0", "192.0.2.2/24").expect("an address");
    host.route("default", "192.0.2.1").expect("a route");
    (host, peer)
}

/// The network of [`Routed`] with a second uplink of the router, `wan1`, and addresses of all kinds.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn routed_with_addresses() -> Routed {
    let net = Routed::new().expect("a network");
    net.router.link("wan1", &net.server, "eth1").expect("a network");
    let router = &net.router;
    for (link, address) in [
        ("lo", "198.51.100.1/32"),
        ("lo", "10.99.0.1/32"),
        ("lo", "2001:db8:99::1/128"),
        ("lo", "fd99::1/128"),
        ("wan0", "203.0.113.7/24"),
        ("wan0", "2001:db8:2::7/64"),
        ("wan1", "192.0.2.1/24"),
        ("wan1", "2001:db8:3::1/64"),
        ("lan0", "198.51.100.65/27"),
        ("lan0", "2001:db8:4::1/64"),
        ("lan0", "fd77::1/64"),
    ] {
        router.address(link, address).expect("a network");
    }
    for (link, address) in [
        ("eth0", "198.51.100.66/27"),
        ("eth0", "100.64.0.2/24"),
        ("eth0", "fd77::2/64"),
        ("eth0", "2001:db8:4::2/64"),
    ] {
        net.client.address(link, address).expect("a network");
    }
    router.address("lan0", "100.64.0.1/24").expect("a network");
    for line in [
        "ip route add default via 192.0.2.9 dev wan1 metric 900",
        "ip -6 route add default via 2001:db8:3::9 dev wan1 metric 9000",
    ] {
        tool::ok(router, line);
    }
    net.server.address("eth1", "192.0.2.9/24").expect("a network");
    net.server.address("eth1", "2001:db8:3::9/64").expect("a network");
    for network in ["198.51.100.0/24", "10.99.0.0/24", "100.64.0.0/24"] {
        net.server.route(network, "203.0.113.1").expect("a network");
    }
    for network in ["2001:db8:99::/64", "2001:db8:4::/64", "fd99::/64", "fd77::/64"] {
        net.server.route(network, "2001:db8:2::1").expect("a network");
    }
    net
}

/// Two hosts on one bridge of a third, whose own uplink the bridge is.
#[derive(Debug)]
pub struct Bridged {
    /// The host with the bridge.
    pub host: Host,
    /// A host on the bridge.
    pub left: Host,
    /// Another host on the bridge, and the gateway of the first.
    pub right: Host,
}

/// The address of [`Bridged::left`].
pub const BRIDGED_LEFT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 11));
/// The address of [`Bridged::right`].
pub const BRIDGED_RIGHT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 12));

impl Bridged {
    /// The three hosts; frames pass netfilter (`bridge-nf-call-iptables`).
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each value is another network")]
    pub fn new() -> Self {
        let names = ["host", "left", "right"].map(|name| Host::new(name).expect("a network"));
        let [host, left, right] = names;
        host.forward().expect("a network");
        tool::ok(&host, "ip link add br0 type bridge");
        tool::ok(&host, "ip link set br0 up");
        host.address("br0", "192.0.2.1/24").expect("a network");
        host.address("br0", "2001:db8::1/64").expect("a network");
        for (port, peer, v4, v6) in [
            ("p1", &left, BRIDGED_LEFT, "2001:db8::11"),
            ("p2", &right, BRIDGED_RIGHT, "2001:db8::12"),
        ] {
            host.link(port, peer, "eth0").expect("a network");
            tool::ok(&host, &format!("ip link set {port} master br0"));
            peer.address("eth0", &format!("{v4}/24")).expect("a network");
            peer.address("eth0", &format!("{v6}/64")).expect("a network");
        }
        host.route("default", &BRIDGED_RIGHT.to_string()).expect("a network");
        host.route("default", "2001:db8::12").expect("a network");
        for family in ["iptables", "ip6tables"] {
            host.sysctl(&format!("net/bridge/bridge-nf-call-{family}"), "1").expect("a network");
        }
        Self { host, left, right }
    }
}

/// A new directory, removed with its contents when the value is dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// An empty directory.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each value is another directory")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("ephport-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).expect("a new directory");
        Self(directory)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A policy file, removed when the value is dropped.
#[derive(Debug)]
pub struct PolicyFile(
    PathBuf,
    #[expect(dead_code, reason = "removes the directory when it is dropped")] TempDir,
);

impl PolicyFile {
    /// A file with this text, in a directory of its own.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let directory = TempDir::new();
        let file = directory.path().join("policy.toml");
        std::fs::write(&file, text).expect("written");
        Self(file, directory)
    }

    /// The same file beside one with this name and text.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn beside(self, name: &str, text: &str) -> Self {
        std::fs::write(self.0.with_file_name(name), text).expect("written");
        self
    }

    /// Its path.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

/// Files with these names and texts, for policies that name them.
#[derive(Debug)]
pub struct Texts<'a>(pub &'a [(&'a str, &'a str)]);

impl Files for Texts<'_> {
    fn open(&self, path: &str) -> io::Result<Box<dyn io::BufRead>> {
        let found = self.0.iter().find(|(name, _)| *name == path);
        let (_, text) = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(text.as_bytes().to_vec())))
    }
}

/// Applies a ruleset on `host`.
///
/// # Panics
/// When it is refused.
pub fn apply(host: &Host, ruleset: &TableState) -> Applied {
    host.run(|| Client::open().and_then(|mut nft| nft.apply(ruleset))).expect("applied")
}

/// The table that is installed on `host`.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn installed(host: &Host) -> Installed {
    host.run(|| Client::open().and_then(|mut nft| nft.installed())).expect("read")
}

/// Compiles a policy file that names its interfaces, without facts of a host.
///
/// # Panics
/// When it is invalid.
#[must_use]
pub fn compiled(toml: &str) -> TableState {
    let document: Document = toml.parse().expect("a document");
    compile(&document.resolve(&HostFacts::default()).expect("resolved")).expect("compiled")
}

/// Whether this is `tests/run --long`, which runs more rounds of the endurance tests.
#[must_use]
pub fn is_long() -> bool {
    env::var_os("EPHPORT_LONG").is_some()
}
