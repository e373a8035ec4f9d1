//! A suite of another project, as docs/test-your-firewall.md shows it: an agent that installs policies, and the
//! ruleset that it writes itself, are tested with the testkit's public face only.

use ephport_core::{Address, HostFacts, Policy, PortRange};
use ephport_nft::client::Transport;
use ephport_nft::table::layout::TABLE;
use ephport_nft::{Applied, Client, Error, Plan};
use ephport_testkit::Kernel;
use ephport_testkit::conformance::{Difference, difference};
use ephport_testkit::kernel::Faults;
use ephport_testkit::strategies::{flows, policies};
use proptest::prelude::*;

/// The agent under test: it applies a policy until that succeeds.
fn install<T: Transport>(client: &mut Client<T>, plan: &Plan) -> Result<Applied, Error> {
    let mut result = client.apply(plan);
    for _ in 0..20 {
        if result.is_ok() {
            break;
        }
        result = client.apply(plan);
    }
    result
}

fn plan(range: &str) -> Plan {
    let range: PortRange = range.parse().unwrap();
    let policy = Policy::to(range).out(["eth0"]).protocols(["udp"]).address(Address::Masquerade);
    Plan::new(&[policy.build().unwrap()], &HostFacts::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agent_installs_a_policy_in_spite_of_faults(seed: u64) {
        let (kernel, plan) = (Kernel::new(), plan("49152-61000"));
        let faults = Faults::new(seed, 100);
        let mut client = Client::with_transport(kernel.socket().with_faults(faults));
        install(&mut client, &plan).unwrap();
        let table = kernel.table(TABLE).expect("a table");
        prop_assert!(table.normalized() == plan.table.normalized());
    }

    #[test]
    fn any_policy_conforms_after_its_way_through_a_kernel(policy in policies(), flow in flows()) {
        let facts = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
        let Ok(plan) = Plan::new(&[policy], &facts) else { return Ok(()) };
        let kernel = Kernel::new();
        Client::with_transport(kernel.socket()).apply(&plan).unwrap();
        let table = kernel.table(TABLE).expect("a table");
        prop_assert_eq!(difference(&table, &plan, &flow), Ok(None));
    }
}

#[test]
fn a_wrong_range_is_a_difference() {
    let flow = "udp 10.0.0.7:20000 -> 203.0.113.9:53 oif eth0".parse().unwrap();
    let found = difference(&plan("1024-2047").table, &plan("49152-61000"), &flow);
    let found = found.unwrap().unwrap();
    assert!(matches!(found, Difference::Translation { .. }), "{found:?}");
    let text = found.to_string();
    assert!(text.contains("expected ports 49152-61000") && text.contains("found ports 1024-2047"));
}
