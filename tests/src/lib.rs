//! Helpers of the tests in `tests/`, which make networks with [`ephport_cli::lab`].
//!
//! The tests require root, or any user under `unshare -Ur`, and change nothing in the machine's own
//! network.
#![forbid(unsafe_code)]

pub mod conntrack;
pub mod docker;
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
use std::{env, iter, thread};

pub use ephport_cli::lab::*;
use ephport_cli::{Exit, run};
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

    /// Its path.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
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
