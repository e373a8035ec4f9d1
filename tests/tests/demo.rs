//! The demonstration, with and without a policy behind it.

use std::error::Error;

use ephport_cli::demo::{ALLOWED, Style, run};
use ephport_core::{Policy, PolicySpec, Target};
use ephport_nft::{Nftables, compile, host};

fn install_the_policy() -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let ports = format!("{}-{}", ALLOWED.start(), ALLOWED.end());
    let policy = Policy::new(PolicySpec::to(Target::Ports(ports.parse()?)))?;
    Nftables::open()?.apply(&compile(&[policy.resolve(&host::facts()?)?])?)?;
    Ok(vec![format!("source ports of all uplinks go to {ports}")])
}

#[test]
fn without_a_policy_it_says_so() {
    let mut out = Vec::new();
    let summary = run(&mut out, Style::default(), &|| Ok(Vec::new())).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(!summary.all_inside);
    assert!(summary.before.iter().chain(&summary.after).all(|group| group.inside() <= 12));
    assert!(text.contains("128 connections still left with a port outside 49152-61000"), "{text}");
}

#[test]
fn with_the_policy_every_port_is_inside() {
    let mut out = Vec::new();
    let summary = run(&mut out, Style::default(), &install_the_policy).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(summary.all_inside, "{text}");
    assert!(text.contains("  source ports of all uplinks go to 49152-61000\n"), "{text}");
    assert!(text.ends_with("all 128 connections left with a port in 49152-61000.\n"), "{text}");
}

#[test]
fn a_failed_installation_is_told() {
    let error = run(&mut Vec::new(), Style::default(), &|| Err("no such policy".into()));
    let message = error.unwrap_err().to_string();
    assert_eq!(message, "cannot install the policy on the demo's own host: no such policy");
}
