//! Other programs: nft, iptables, conntrack, strace. `tests/run` installs them.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::Host;

/// The output of a tool.
#[derive(Debug)]
pub struct Printed {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Whether its exit status is 0.
    pub success: bool,
}

/// Runs a tool on `host` with this standard input.
///
/// # Panics
/// When the tool is not installed.
#[must_use]
pub fn tool(host: &Host, program: &str, args: &[&str], input: &str) -> Printed {
    let output = host.run(|| {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; `tests/run` installs it"));
        let mut stdin = child.stdin.take().expect("a pipe");
        // A tool that does not read its input may have exited already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("its output")
    });
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Printed { out: text(&stdout), err: text(&stderr), success: status.success() }
}

/// Runs a tool that must succeed and print nothing on standard error; returns standard output.
///
/// # Panics
/// When it fails or prints an error.
pub fn ok(host: &Host, line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let printed = tool(host, program, &words.collect::<Vec<_>>(), "");
    assert!(printed.success && printed.err.is_empty(), "{line}: {printed:?}");
    printed.out
}

/// Whether the kernel must have all that the tests can use, as those of `tests/kernels`.
#[must_use]
pub fn is_complete_kernel() -> bool {
    std::env::var_os("EPHPORT_COMPLETE_KERNEL").is_some()
}

/// Whether the kernel accepts the command. One that does not is reported; with `EPHPORT_COMPLETE_KERNEL`, as in
/// `tests/kernels`, every kernel must.
///
/// # Panics
/// When the tool is not installed, and when a kernel that must accept the command does not.
#[must_use]
pub fn is_able(host: &Host, line: &str) -> bool {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    let printed = tool(host, program, &words.collect::<Vec<_>>(), "");
    if printed.success {
        return true;
    }
    let reason = format!("this kernel refuses `{line}`: {}", printed.err.trim());
    assert!(!is_complete_kernel(), "{reason}");
    // The test harness does not capture this.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
    false
}

/// Loads a ruleset with `nft -f`, which must print nothing.
///
/// # Panics
/// When nft refuses it.
pub fn nft_load(host: &Host, ruleset: &str) {
    let printed = tool(host, "nft", &["-f", "-"], ruleset);
    assert!(printed.success && printed.err.is_empty(), "{printed:?}\n{ruleset}");
}

/// The binary `ephport-nft` of this build.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let built = test.ancestors().nth(2).expect("the target directory").join("ephport-nft");
    assert!(built.exists(), "{} is missing; `tests/run` builds it", built.display());
    built
}
