//! A Docker engine on a host of the lab.
//!
//! It runs in PID, mount and network namespaces of its own. All that it writes is in their memory,
//! so that it vanishes with them: when the value is dropped, and when this process is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Host;
use crate::tool::{Printed, tool};

/// Which iptables dockerd calls.
#[derive(Clone, Copy, Debug)]
pub enum Iptables {
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

/// A running dockerd; it stops, with all of its containers, when it is dropped.
#[derive(Debug)]
pub struct Dockerd<'a> {
    host: &'a Host,
    process: Child,
    /// Closed, it ends the engine.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl<'a> Dockerd<'a> {
    /// Starts dockerd on `host` with these arguments beside its defaults. It can be used on return.
    ///
    /// # Panics
    /// When it does not start, with its output.
    #[must_use]
    pub fn start(host: &'a Host, iptables: Iptables, args: &[&str]) -> Self {
        let iptables = match iptables {
            Iptables::Nft => "nft",
            Iptables::Legacy => "legacy",
        };
        let mut process = host.run(|| {
            Command::new("unshare")
                .args(["--mount", "--pid", "--fork", "--mount-proc", "bash", "-c"])
                .args([include_str!("docker/dockerd.sh"), "dockerd"])
                .args(args)
                .env("IPTABLES", iptables)
                .env("PEER", include_str!("docker/peer.c"))
                .env("OWNER", std::process::id().to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("unshare, of util-linux")
        });
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut dockerd = Self { host, process, input, output };
        dockerd.wait_until_ready();
        dockerd
    }

    /// Stops and starts it, as `systemctl restart docker` does.
    ///
    /// # Panics
    /// When it does not start again.
    pub fn restart(&mut self) {
        self.input.as_mut().expect("open").write_all(b"restart\n").expect("it runs");
        self.wait_until_ready();
    }

    /// Runs `docker` with these words, and this standard input.
    #[must_use]
    pub fn docker(&self, words: &[&str], input: &str) -> Printed {
        // The socket is in the engine's own /run.
        let process = self.process.id().to_string();
        let enter =
            ["--target", &process, "--mount", "env", "DOCKER_BUILDKIT=0", "HOME=/run", "docker"];
        tool(self.host, "nsenter", &[&enter, words].concat(), input)
    }

    /// The same, which must succeed; what it printed on standard output.
    ///
    /// # Panics
    /// When it does not.
    pub fn ok(&self, line: &str) -> String {
        let printed = self.docker(&line.split_whitespace().collect::<Vec<_>>(), "");
        assert!(printed.success, "docker {line}: {printed:?}");
        printed.out
    }

    /// Builds an image from nothing but the program `/peer` (see `docker/peer.c`), with these
    /// further lines of its Dockerfile; what was printed.
    #[must_use]
    pub fn build(&self, words: &[&str], lines: &str) -> Printed {
        let dockerfile = format!("FROM scratch\nCOPY peer /\nSTOPSIGNAL KILL\n{lines}\n");
        let build = ["build", "--no-cache", "--file", "-"];
        self.docker(&[&build, words, &["/run/context"]].concat(), &dockerfile)
    }

    fn wait_until_ready(&mut self) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("its output");
        if line == "ready\n" {
            return;
        }
        let _ = self.output.read_to_string(&mut line);
        let mut errors = String::new();
        let _ = self.process.stderr.take().map(|mut pipe| pipe.read_to_string(&mut errors));
        panic!("dockerd did not start; it needs root, cgroups and overlayfs:\n{line}{errors}");
    }
}

impl Drop for Dockerd<'_> {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

/// The calls that `/peer` printed: the source as the container had it, and as the server saw it.
///
/// # Panics
/// When it printed something else on a line of its own kind.
#[must_use]
pub fn calls(printed: &str) -> Vec<(SocketAddr, SocketAddr)> {
    let addresses = |line: &str| {
        let (own, seen) = line.strip_prefix("call ")?.split_once(' ')?;
        Some((own.parse().expect("an address"), seen.parse().expect("an address")))
    };
    printed.lines().filter_map(addresses).collect()
}
