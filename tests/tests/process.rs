//! The binary as a process: what it starts, and what it needs.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::{env, fs, process};

use ephport_tests::strace::traced;
use ephport_tests::tool::{binary, ok};
use ephport_tests::{Host, Routed, host_with_uplink};

/// Runs a command line on `host` under strace; the system calls that start a process.
fn started(host: &Host, line: &str) -> Vec<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let starting = "trace=execve,execveat,fork,vfork,clone,clone3";
    let run = traced(host, &["-f", "-e", starting], &words);
    assert!(run.output.status.success(), "{run:?}");
    run.calls.lines().map(Into::into).collect()
}

#[test]
fn no_process_is_started() {
    let net = Routed::new().unwrap();
    for line in
        ["apply --to-ports 49152-61000", "status", "apply --to-ports 1-2", "show --to 1", "remove"]
    {
        let calls = started(&net.router, line);
        // The one is strace's own start of the binary.
        assert_eq!(calls.len(), 1, "{line}: {calls:#?}");
        assert!(calls[0].contains("execve(") && calls[0].ends_with("= 0"), "{calls:#?}");
    }
    assert!(!ok(&net.router, "nft list ruleset").contains("ephport"));
}

#[test]
fn trial_forks_once_and_starts_no_program() {
    let net = Routed::new().unwrap();
    let starting = "trace=execve,execveat,fork,vfork,clone,clone3";
    let line = "apply --to-ports 49152-61000 --confirm 1";
    let words: Vec<_> = line.split(' ').collect();
    let run = traced(&net.router, &["-f", "-e", starting], &words);
    assert_eq!(run.output.status.code(), Some(3), "{run:?}");
    // The number of the process, padded to five characters, then the call, a signal (`---`), or the
    // end of a call during which another process made one (`<...`).
    let calls =
        run.calls.lines().map(|line| line.trim_start_matches(|c| matches!(c, '0'..='9' | ' ')));
    let names = calls.filter_map(|line| Some(line.split_once('(')?.0));
    let names = names.filter(|name| !name.starts_with("---") && !name.starts_with("<..."));
    let (execs, forks): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("exec"));
    assert_eq!((execs.len(), forks.len()), (1, 1), "{}", run.calls);
}

/// Runs the binary on `host` after these words of a shell, in a mount namespace of its own.
fn after(host: &Host, before: &str, line: &str) -> (Option<i32>, String) {
    let script = format!("{before} && exec \"$0\" {line}");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).arg(binary());
    let output = host.run(|| command.output()).expect("unshare, of util-linux");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn without_proc_the_cause_is_named() {
    let (host, _peer) = host_with_uplink();
    let run = |line: &str| after(&host, "mount -t tmpfs none /proc", line);
    let silent = (Some(0), String::new());
    assert_eq!(run("apply --to-ports 49152-61000 --protocol udp,udplite"), silent);
    // What cannot be known is not assumed: packets that IPsec protects are out of scope.
    assert!(ok(&host, "nft list ruleset").contains("rt ipsec"));
    for line in [
        "status",
        "diff --to-ports 49152-61000 --protocol udp,udplite",
        "show --to-ports 1",
        "remove",
    ] {
        assert_eq!(run(line), silent, "{line}");
    }
    for (line, cause) in [
        ("apply --to-ports local", "net.ipv4.ip_local_port_range, cannot be read"),
        (
            "apply --to-ports 49152-61000 --confirm 1",
            "cannot start the process that keeps the undo: No such file or directory (os error 2); nothing is changed",
        ),
    ] {
        let (code, err) = run(line);
        assert!(code == Some(1) && err.contains(cause), "{line}: {code:?} {err}");
    }
    assert_eq!(ok(&host, "nft list ruleset"), "");
}

#[test]
fn without_free_descriptors_the_cause_is_named() {
    let (host, _peer) = host_with_uplink();
    let run = |line: &str| after(&host, "ulimit -n 4", line);
    // One socket is enough to change the table, and not to know all that is asked.
    let (code, err) = run("apply --to-ports 49152-61000");
    let warning = "warning: open UDP connections of this host may be translated: ";
    assert!(code == Some(0) && err.starts_with(warning), "{code:?} {err}");
    assert!(err.contains("EMFILE: Too many open files"), "{err}");
    let (code, err) = run("status");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("EMFILE: Too many open files") && err.contains("ulimit -n"), "{err}");
    assert_eq!(run("remove"), (Some(0), String::new()));
}

/// In a user namespace the sysctls of IPsec are hidden.
#[test]
fn ipsec_is_skipped_in_a_user_namespace_too() {
    let script = "\"$0\" apply --to-ports 49152-61000 -o any && nft list ruleset";
    let mut command = Command::new("unshare");
    let output =
        command.args(["-Urn", "sh", "-c", script]).arg(binary()).output().expect("unshare");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("rt ipsec"), "{output:?}");
}

/// Runs the demo as the user nobody, after these words of a shell.
fn demo_as_nobody(before: &str) -> Output {
    let path = env::temp_dir().join(format!("ephport-nft-{}", process::id()));
    fs::copy(binary(), &path).expect("a copy that nobody may read");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("readable");
    let output = Command::new("sh")
        .args([
            "-c",
            &format!(
                "{before} exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" demo"
            ),
        ])
        .arg(&path)
        .output()
        .expect("sh");
    fs::remove_file(&path).expect("removed");
    output
}

#[test]
fn demo_needs_no_privilege() {
    let output = demo_as_nobody("");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(
        out.contains("  policy default\n") && out.contains("1024-65535 -> 49152-61000\n"),
        "{out}"
    );
    assert!(
        out.ends_with(
            "With the policy all 128 connections were sent with a port in 49152-61000.\n"
        )
    );
    assert!(!out.contains('\x1b'), "colour without a terminal");
}

#[test]
fn demo_names_the_sysctl_that_forbids_namespaces() {
    // Restriction within a user namespace of this test's own, without any capability in it.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --securebits +noroot --bounding-set -all --inh-caps -all \"$0\" demo";
    let output = Command::new("unshare")
        .args(["-Ur", "sh", "-c", script])
        .arg(binary())
        .output()
        .expect("unshare, of util-linux");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: cannot make a private user namespace: unshare(CLONE_NEWUSER) failed \
         (ENOSPC: No space left on device); user.max_user_namespaces is 0, set it with \
         `sysctl -w user.max_user_namespaces=1000`. Or run as root with all capabilities: \
         that changes nothing on this host either\n"
    );
}
