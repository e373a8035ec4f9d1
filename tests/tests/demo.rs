//! The demonstration, with and without a policy.

use std::error::Error;
use std::fs::File;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Mutex;

use ephport_cli::demo::{ALLOWED, DemoError, Style, run};
use ephport_core::{Policy, PolicySpec, Target};
use ephport_nft::{Client, compile, host};
use ephport_tests::tool::binary;
use ephport_tests::without_descriptors;

fn install_the_policy() -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let ports = format!("{}-{}", ALLOWED.start(), ALLOWED.end());
    let policy = Policy::new(PolicySpec::to(Target::Ports(ports.parse()?)))?;
    Client::open()?.apply(&compile(&[policy.resolve(&host::facts()?)?])?)?;
    Ok(vec![format!("source ports of all uplinks go to {ports}")])
}

#[test]
fn demo_without_policy_reports_ports_outside() {
    let mut out = Vec::new();
    let summary = run(&mut out, Style::default(), &|| Ok(Vec::new())).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(!summary.all_inside);
    assert!(summary.before.iter().chain(&summary.after).all(|group| group.inside() <= 12));
    assert!(
        text.contains("128 connections were still sent with a port outside 49152-61000"),
        "{text}"
    );
}

#[test]
fn demo_with_policy_has_every_port_inside() {
    let mut out = Vec::new();
    let summary = run(&mut out, Style::default(), &install_the_policy).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(summary.all_inside, "{text}");
    assert!(text.contains("  source ports of all uplinks go to 49152-61000\n"), "{text}");
    assert!(
        text.ends_with("all 128 connections were sent with a port in 49152-61000.\n"),
        "{text}"
    );
}

#[test]
fn network_that_cannot_be_made_is_an_error() {
    let demonstrated =
        without_descriptors(|| run(&mut Vec::new(), Style::default(), &|| Ok(Vec::new())));
    let error = demonstrated.unwrap_err();
    assert!(matches!(error, DemoError::Lab(_)), "{error}");
}

#[test]
fn failed_connection_is_reported_with_its_host() {
    let taken = Mutex::new(Vec::new());
    let take_a_port_of_the_demo = || {
        taken.lock().unwrap().push(TcpListener::bind("0.0.0.0:1024")?);
        Ok(Vec::new())
    };
    let error = run(&mut Vec::new(), Style::default(), &take_a_port_of_the_demo).unwrap_err();
    let expected = "after the policy, from the host: cannot send TCP from 0.0.0.0:1024 \
                    (EADDRINUSE: Address already in use): is that port free and the address local?";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn unwritable_report_is_an_error() {
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    let error = run(&mut full, Style::default(), &|| Ok(Vec::new())).unwrap_err();
    let expected = "cannot write the report: No space left on device (os error 28)";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn failed_installation_is_an_error() {
    let error = run(&mut Vec::new(), Style::default(), &|| Err("no such policy".into()));
    let message = error.unwrap_err().to_string();
    assert_eq!(message, "cannot install the policy on the demo's own host: no such policy");
}

#[test]
fn forbidden_namespaces_are_named_with_their_sysctl() {
    // The limit is that of the new user namespace (namespaces(7)).
    let script = "echo 0 >/proc/sys/user/max_net_namespaces && exec \"$0\" demo";
    let unshare = ["-Ur", "sh", "-c", script];
    let output = Command::new("unshare").args(unshare).arg(binary()).output().expect("unshare");
    let expected = "error: cannot make a network namespace for client (ENOSPC: No space left on \
                    device); user.max_net_namespaces is 0, set it with `sysctl -w \
                    user.max_net_namespaces=1000`\n";
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), err.as_ref()), (Some(1), expected));
}
