//! The feature `serde`: plans return equal, from a recording of a host too; reports of status, drift and errors return.

mod scripted;

use std::fmt::Debug;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ephport_core::strategies::documents;
use ephport_core::{HostFacts, PortRange};
use ephport_nft::client::{ErrorReport, Report};
use ephport_nft::table::TableId;
use ephport_nft::{Applied, Client, Drift, Errno, Plan};
use proptest::prelude::*;
use scripted::{BatchFault, Kernel, ruleset};
use serde_json::{from_str, json, to_string, to_value};

fn host() -> HostFacts {
    let mut host = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
    host.local_ports = PortRange::named("linux");
    host
}

proptest! {
    #[test]
    fn plans_return(document in documents()) {
        let Ok(plan) = Plan::new(document.policies(), &host()) else { return Ok(()) };
        prop_assert_eq!(&from_str::<Plan>(&to_string(&plan).unwrap()).unwrap(), &plan);
        let id = TableId::new("agent", "agent-1").unwrap().with_priority(91).unwrap();
        let own = plan.in_table(&id).unwrap();
        prop_assert_eq!(from_str::<Plan>(&to_string(&own).unwrap()).unwrap(), own);
    }
}

#[test]
fn recorded_host_gives_the_same_plan() {
    let policy = ephport_core::Policy::to(PortRange::EPHEMERAL).build().unwrap();
    let recording = to_string(&host()).unwrap();
    let facts: HostFacts = from_str(&recording).unwrap();
    let plan = Plan::new([&policy], &facts).unwrap();
    assert_eq!(plan, Plan::new([&policy], &host()).unwrap());
}

#[test]
fn plan_with_a_wrong_part_is_refused() {
    let value = json!({ "policies": [{ "name": "a", "to-ports": "1-9" }], "facts": {} });
    let error = serde_json::from_value::<Plan>(value).unwrap_err().to_string();
    assert!(error.starts_with("policy `a`: no uplink found"), "{error}");
    let id = json!({ "name": "a b", "owner": "x", "priority": 90 });
    assert!(serde_json::from_value::<TableId>(id).is_err());
}

fn returned<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(value: &T) {
    assert_eq!(&from_str::<T>(&to_string(value).unwrap()).unwrap(), value);
}

#[test]
fn reports_return() {
    let desired = ruleset("49152-61000");
    let mut changed = desired.clone();
    changed.rules.pop();
    let mut kernel = Kernel { ruleset: Some(changed), ..Kernel::default() };
    let mut client = Client::with_transport(&mut kernel);
    let report: Report = client.status(&desired).unwrap().report();
    returned(&report);
    let parts = to_value(&report).unwrap();
    assert_eq!((&parts["table"], &parts["state"]), (&json!("ephport"), &json!("drifted")));
    assert_eq!(parts["policies"][0]["to_ports"], json!("49152-61000"));
    let drift: Vec<Drift> = client.installed().unwrap().drift(&desired).unwrap();
    assert!(!drift.is_empty());
    returned(&drift);
    returned(&Applied::Replaced);
}

#[test]
fn error_reports_name_what_the_kernel_refused() {
    let fault = BatchFault::Fails { at: vec![(1, Errno::EEXIST)], acked: false };
    let mut kernel = Kernel { batch_faults: [fault].into(), ..Kernel::default() };
    let error = Client::with_transport(&mut kernel).apply(&ruleset("49152-61000")).unwrap_err();
    let report: ErrorReport = error.report();
    returned(&report);
    assert_eq!((&*report.variant, report.errno), ("Rejected", Some(Errno::EEXIST.raw())));
    assert_eq!(report.request.as_deref(), Some("add table ephport"));
}

/// The example `planner` plans for a recorded host, whatever this host is: as nobody where this process may become
/// nobody, else as its own user.
#[test]
fn planner_needs_no_kernel() {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join("examples/planner");
    let recording = json!({ "uplinks": ["wan0"], "interfaces": ["docker0", "wan0"] });
    let start = |configure: fn(&mut Command) -> &mut Command| {
        let mut planner = Command::new(&path);
        planner.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        configure(&mut planner).spawn()
    };
    let as_nobody = start(|planner| planner.uid(65_534).gid(65_534));
    let started = as_nobody.or_else(|_| start(|planner| planner));
    let mut child = started.expect("cargo build --features serde --example planner");
    child.stdin.take().unwrap().write_all(recording.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let flow = "tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif wan0 iif docker0: 49152-61000\n";
    assert!(text.starts_with(flow) && text.contains("table inet ephport {"), "{text}");
}
