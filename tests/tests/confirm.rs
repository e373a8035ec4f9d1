//! `apply --confirm`: what stays and what is undone, by the binary and a real terminal (script).

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use ephport_cli::Exit;
use ephport_nft::{Client, Installed};
use ephport_tests::tool::{binary, nft_load, ok};
use ephport_tests::{Host, apply, compiled, ephport, ephport_ok, installed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const APPLY: &str = "apply --to-ports 49152-61000 -o any --confirm";
const PROMPT: &str = "Keep it with Enter";
/// Longer than any test.
const LONG: &str = "600";

/// A running `apply --confirm`.
struct Trial {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Trial {
    /// Starts it on `host` and waits until the policy is applied.
    fn start(host: &Host, seconds: &str) -> Self {
        let mut command = Command::new(binary());
        command.args(APPLY.split(' ')).arg(seconds).stdin(Stdio::null());
        Self::spawn(host, command)
    }

    /// Starts it on `host` in a terminal of its own.
    fn in_terminal(host: &Host, line: &str) -> Self {
        let mut command = Command::new("script");
        let line = format!("{} {line}", binary().display());
        command.args(["-q", "-e", "-c", &line, "/dev/null"]).stdin(Stdio::piped());
        Self::spawn(host, command)
    }

    fn spawn(host: &Host, mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut child = host.run(|| command.spawn()).expect("a process");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut trial = Self { child, out };
        trial.read_to(PROMPT);
        trial
    }

    /// Reads the output up to a line that contains `text`.
    fn read_to(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let count = self.out.read_line(&mut line).expect("a line");
            assert_ne!(count, 0, "the output ended before {text:?}");
        }
        line
    }

    /// The rest of the output: it ends when no process writes to it any more.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("UTF-8");
        rest
    }

    fn signal(&self, signal: Signal) {
        kill(pid(&self.child), signal).expect("sent");
    }

    fn end(mut self) -> (Option<i32>, String) {
        let rest = self.rest();
        (self.wait().code(), rest)
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }

    /// The process that keeps the undo.
    fn holder(&self) -> Pid {
        let id = self.child.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let children = std::fs::read_to_string(children).expect("children");
        Pid::from_raw(children.trim().parse().expect("one child"))
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process id"))
}

/// The state from before, with a rule that another program added.
fn with_former_policy() -> (Host, String) {
    let host = Host::new("host").unwrap();
    ephport_ok(&host, "apply --to-ports 2000-2999 -o any --enforce");
    ok(&host, "nft add rule inet ephport postrouting counter packets 7 bytes 9");
    let listing = listing(&host);
    (host, listing)
}

fn listing(host: &Host) -> String {
    ok(host, "nft list ruleset")
}

fn is_absent(host: &Host) -> bool {
    matches!(installed(host), Installed::Absent)
}

#[test]
fn unconfirmed_policy_is_undone_after_its_time() {
    let (host, before) = with_former_policy();
    let (code, rest) = Trial::start(&host, "1").end();
    assert_eq!(rest, "not confirmed within 1 s: restored the table from before\n");
    assert_eq!((code, listing(&host)), (Some(3), before));

    let host = Host::new("host").unwrap();
    let (code, rest) = Trial::start(&host, "1").end();
    let text = "not confirmed within 1 s: removed the table, as there was none before\n";
    assert_eq!((code, rest.as_str()), (Some(3), text));
    assert!(is_absent(&host));
}

#[test]
fn confirmed_policy_stays() {
    let host = Host::new("host").unwrap();
    let trial = Trial::start(&host, LONG);
    let confirmed = ephport(&host, "confirm");
    assert_eq!((confirmed.exit, confirmed.err.as_str()), (Exit::Success, ""));
    assert_eq!(confirmed.out, "confirmed: the policy stays\n");
    assert_eq!(trial.end(), (Some(0), "confirmed: the policy stays\n".into()));
    assert_eq!(ephport(&host, "status").exit, Exit::Success);

    let nothing = ephport(&host, "confirm --json");
    let document: Value = serde_json::from_str(&nothing.out).unwrap();
    assert_eq!((nothing.exit, &document["result"]), (Exit::Differs, &json!("none")));
}

#[test]
fn enter_on_the_terminal_confirms() {
    let host = Host::new("host").unwrap();
    let mut trial = Trial::in_terminal(&host, &format!("{APPLY} {LONG}"));
    let mut keyboard = trial.child.stdin.take().unwrap();
    keyboard.write_all(b"\n").unwrap();
    trial.read_to("confirmed: the policy stays");
    assert_eq!(trial.wait().code(), Some(0));
    assert_eq!(ephport(&host, "status").exit, Exit::Success);
}

#[test]
fn unchanged_policy_needs_no_confirmation() {
    let host = Host::new("host").unwrap();
    ephport_ok(&host, APPLY.strip_suffix(" --confirm").unwrap());
    let mut command = Command::new(binary());
    command.args(APPLY.split(' ')).args([LONG, "--json"]);
    let output = host.run(|| command.output()).unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        (&document["result"], &document["confirmation"]),
        (&json!("unchanged"), &json!(null))
    );
}

#[test]
fn closed_terminal_undoes() {
    let (host, before) = with_former_policy();
    let mut trial = Trial::in_terminal(&host, &format!("{APPLY} {LONG}"));
    // The terminal emulator dies: the kernel hangs up the terminal.
    trial.signal(Signal::SIGKILL);
    trial.wait();
    wait_for_listing(&host, &before);
}

#[test]
fn each_death_of_the_foreground_undoes() {
    use Signal::{SIGHUP, SIGINT, SIGKILL, SIGTERM};
    for signal in [SIGHUP, SIGINT, SIGTERM, SIGKILL] {
        let (host, before) = with_former_policy();
        let mut trial = Trial::start(&host, LONG);
        trial.signal(signal);
        assert_eq!(trial.rest(), "interrupted: restored the table from before\n", "{signal}");
        assert_eq!(trial.wait().code(), None);
        assert_eq!(listing(&host), before, "{signal}");
    }
}

#[test]
fn signals_to_the_holder_undo() {
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        let (host, before) = with_former_policy();
        let trial = Trial::start(&host, LONG);
        kill(trial.holder(), signal).unwrap();
        let text = format!("ended by {signal}: restored the table from before\n");
        assert_eq!(trial.end(), (Some(3), text));
        assert_eq!(listing(&host), before);
    }
}

#[test]
fn killed_holder_is_an_error() {
    let host = Host::new("host").unwrap();
    let trial = Trial::start(&host, LONG);
    kill(trial.holder(), Signal::SIGKILL).unwrap();
    assert_eq!(trial.end(), (Some(1), String::new()));
    assert_eq!(ephport(&host, "status").exit, Exit::Success);
}

#[test]
fn failed_undo_is_an_error() {
    let host = Host::new("host").unwrap();
    let mut command = Command::new(binary());
    command.args(APPLY.split(' ')).arg(LONG).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut trial = Trial::spawn(&host, command);
    let holder = trial.holder();
    // From here on, the kernel accepts nothing from the holder.
    let mut strace = Command::new("strace")
        .args(["-p", &holder.to_string(), "-o", "/dev/null", "-e", "inject=sendto:error=ENOMEM"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace");
    let mut attached = String::new();
    BufReader::new(strace.stderr.take().unwrap()).read_line(&mut attached).unwrap();
    assert!(attached.contains("attached"), "{attached}");
    kill(holder, Signal::SIGTERM).unwrap();
    let mut err = String::new();
    trial.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    strace.wait().unwrap();
    assert!(err.contains("the new policy is not confirmed and cannot be undone: "), "{err}");
    assert_eq!(trial.wait().code(), Some(1));
    assert_eq!(ephport(&host, "status").exit, Exit::Success);
}

#[test]
fn edited_policy_is_undone_too() {
    let (host, before) = with_former_policy();
    let mut trial = Trial::start(&host, LONG);
    ok(&host, "nft add rule inet ephport postrouting meta mark 7 counter");
    trial.signal(Signal::SIGTERM);
    trial.rest();
    assert_eq!(listing(&host), before);
}

#[test]
fn other_policy_of_another_process_stays() {
    let (host, _) = with_former_policy();
    let foreign = "table inet ephport {\n}\n";
    let meanwhile: [(&str, &dyn Fn()); 4] = [
        ("applied", &|| drop(ephport_ok(&host, "apply --to-ports 5000-5999 -o any"))),
        ("removed", &|| drop(ephport_ok(&host, "remove"))),
        ("flushed", &|| drop(ok(&host, "nft flush ruleset"))),
        ("foreign", &|| {
            ok(&host, "nft flush ruleset");
            nft_load(&host, foreign);
        }),
    ];
    for (what, change) in meanwhile {
        ephport_ok(&host, "apply --to-ports 2000-2999 -o any");
        let trial = Trial::start(&host, LONG);
        change();
        let changed = listing(&host);
        trial.signal(Signal::SIGTERM);
        let rest = { trial }.rest();
        let text = "nothing is undone, because another process changed the policy";
        assert!(rest.contains(text), "{what}: {rest}");
        assert_eq!(listing(&host), changed, "{what}");
        ok(&host, "nft flush ruleset");

        ephport_ok(&host, "apply --to-ports 2000-2999 -o any");
        let trial = Trial::start(&host, LONG);
        change();
        let confirmed = ephport(&host, "confirm --json");
        let document: Value = serde_json::from_str(&confirmed.out).unwrap();
        assert_eq!((confirmed.exit, &document["result"]), (Exit::Differs, &json!("superseded")));
        assert_eq!(trial.end().0, Some(3), "{what}");
        assert_eq!(listing(&host), changed, "{what}");
        ok(&host, "nft flush ruleset");
    }
}

#[test]
fn second_trial_is_refused() {
    let host = Host::new("host").unwrap();
    let trial = Trial::start(&host, LONG);
    let before = listing(&host);
    let mut command = Command::new(binary());
    command.args("apply --to-ports 1-2 -o any --confirm 1".split(' '));
    let output = host.run(|| command.output()).unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("another `apply --confirm` waits"), "{err}");
    assert_eq!(listing(&host), before);
    trial.signal(Signal::SIGTERM);
    trial.end();
}

#[test]
fn other_users_cannot_confirm() {
    let host = Host::new("host").unwrap();
    let mut command = Command::new(binary());
    command.args(APPLY.split(' ')).arg(LONG).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut trial = Trial::spawn(&host, command);
    let mut err = trial.child.stderr.take().unwrap();
    let script = "import socket\ns = socket.socket(socket.AF_UNIX)\n\
                  s.connect('\\0ephport-nft/confirm')\nprint(s.recv(9))";
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "python3", "-c", script]);
    command.env("PATH", "/usr/bin:/bin");
    let output = host.run(|| command.output()).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "b''\n", "{output:?}");
    // The administrator who waits reads it at once.
    let mut first = [0; 64];
    let count = err.read(&mut first).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&first[..count]),
        "warning: user 65534 tried to confirm, and was refused\n"
    );
    assert_eq!(ephport(&host, "confirm").exit, Exit::Success);
    assert_eq!(trial.end().0, Some(0));
}

#[test]
fn process_with_threads_cannot_start_a_trial() {
    let host = Host::new("host").unwrap();
    let refused = ephport(&host, &format!("{APPLY} 9"));
    assert_eq!(refused.exit, Exit::Failure);
    assert!(refused.err.contains("nothing is changed"), "{}", refused.err);
    assert!(is_absent(&host));
}

#[test]
fn library_undoes_only_its_own_change() {
    let host = Host::new("host").unwrap();
    let policy = |ports| {
        compiled(&format!(
            "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nto-ports = \"{ports}\"\n"
        ))
    };
    let mut client = host.run(Client::open).unwrap();
    apply(&host, &policy("1000-1999"));
    assert_eq!(client.apply_undoable(&policy("1000-1999")).unwrap().1, None);
    let (_, undo) = client.apply_undoable(&policy("2000-2999")).unwrap();
    let undo = undo.expect("a change");
    assert_eq!(client.undo(&undo), Ok(ephport_nft::client::Undone::Restored));
    assert_eq!(client.undo(&undo), Ok(ephport_nft::client::Undone::Restored));
    assert!(installed(&host).is_from(&policy("1000-1999")));
    apply(&host, &policy("3000-3999"));
    assert_eq!(client.undo(&undo), Ok(ephport_nft::client::Undone::Superseded));
    assert!(installed(&host).is_from(&policy("3000-3999")));
}

/// Waits until the ruleset is `expected`.
fn wait_for_listing(host: &Host, expected: &str) {
    let mut events = host.run(ephport_nft::client::Events::open).unwrap();
    while listing(host) != expected {
        let event = events.next_within(std::time::Duration::from_secs(20));
        assert!(event.is_some(), "no change within 20 s: {}", listing(host));
    }
}
