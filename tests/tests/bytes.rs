//! The kernel's rules after `apply` are those after nft's own command, byte for byte.

use ephport_cli::Exit;
use ephport_core::{Address, NatFlags, Policy, PolicySpec, PortRange, Protocols};
use ephport_core::{HostFacts, OutInterfaces, PickUp};
use ephport_nft::netlink::Writer;
use ephport_nft::nftables::Rule;
use ephport_nft::nftables::expr::Expr;
use ephport_nft::{Client, compile};
use ephport_tests::random::samples;
use ephport_tests::tool::{nft_load, ok, tool};
use ephport_tests::{Host, apply, ephport};

/// What precedes the expressions of nft's rule: `-o any` guards loopback with a meta and a cmp.
const GUARD: usize = 2;

struct Case {
    sport: PortRange,
    to: PortRange,
    flags: NatFlags,
}

fn cases() -> Vec<Case> {
    use ephport_core::strategies::port_ranges;
    let flags = |bits: usize| NatFlags {
        random: bits & 1 != 0,
        fully_random: bits & 2 != 0,
        persistent: bits & 4 != 0,
    };
    let ranges = samples(&(port_ranges(), port_ranges()), 500);
    let with_flags = |(i, (sport, to))| Case { sport, to, flags: flags(i % 8) };
    let mut cases: Vec<_> = ranges.into_iter().enumerate().map(with_flags).collect();
    let edges = ["1", "65535", "1-65535", "1024-65535", "1-2", "32768-61000"];
    for (i, text) in edges.iter().cycle().take(48).enumerate() {
        let range = text.parse().expect("a range");
        cases.push(Case { sport: range, to: range, flags: flags(i / 6) });
    }
    cases
}

fn nft_rule(case: &Case) -> String {
    let names = [
        (case.flags.random, "random"),
        (case.flags.fully_random, "fully-random"),
        (case.flags.persistent, "persistent"),
    ];
    let flags: Vec<_> = names.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    let (sport, to, flags) = (case.sport, case.to, flags.join(","));
    format!("meta l4proto tcp th sport {sport} masquerade to :{to} {flags}")
}

fn policy(case: &Case) -> Policy {
    let mut spec = PolicySpec::to(case.to);
    spec.scope.out_interfaces = OutInterfaces::Any;
    spec.scope.protocols = Some("tcp".parse::<Protocols>().expect("tcp"));
    (spec.source_ports, spec.flags) = (case.sport.into(), case.flags);
    (spec.address, spec.pick_up) = (Address::Masquerade, PickUp::Any);
    Policy::new(spec).expect("a policy")
}

fn bytes(exprs: &[Expr]) -> Vec<u8> {
    let mut w = Writer::new();
    for expr in exprs {
        expr.encode(&mut w);
    }
    w.finish().expect("small enough")
}

/// The rules in which ephport counts, less guard and counter.
fn comparable(rule: &Rule) -> Option<Vec<u8>> {
    rule.counter()?;
    let uncounted: Vec<_> =
        rule.exprs.iter().filter(|expr| !matches!(expr, Expr::Counter(_))).cloned().collect();
    uncounted.get(GUARD..).map(bytes)
}

#[test]
fn five_hundred_ranges_and_all_flag_sets() {
    let cases = cases();
    let (judge, host) = (Host::new("judge").unwrap(), Host::new("host").unwrap());
    let rules: Vec<_> = cases.iter().map(nft_rule).collect();
    nft_load(
        &judge,
        &format!(
            "table inet judge {{\n chain postrouting {{\n \
             type nat hook postrouting priority 90; policy accept;\n{}\n}}\n}}\n",
            rules.join("\n")
        ),
    );
    let judged = judge.run(|| Client::open().unwrap().read_table(1, "judge").unwrap().0.unwrap());
    assert_eq!(judged.rules.len(), cases.len());
    for (case, expected) in cases.iter().zip(&judged.rules) {
        let resolved = policy(case).resolve(&HostFacts::default()).unwrap();
        apply(&host, &compile(&[resolved]).unwrap());
        let ours =
            host.run(|| Client::open().unwrap().read_table(1, "ephport").unwrap().0.unwrap());
        let found: Vec<_> = ours.rules.iter().filter_map(comparable).collect();
        assert_eq!(found, [bytes(&expected.exprs)], "{}", nft_rule(case));
    }
}

#[test]
fn original_line_is_listed_by_nft_unchanged() {
    let host = Host::new("host").unwrap();
    let line = "-p tcp --sport 32768-61000 --to-ports 49152-61000 -o any --pick-up any --address masquerade";
    let ended = ephport(&host, &format!("apply {line}"));
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, ""));
    let listed = tool(&host, "nft", &["list", "ruleset"], "");
    assert_eq!(listed.err, "");
    assert!(
        listed
            .out
            .contains("tcp sport 32768-61000 counter packets 0 bytes 0 masquerade to :49152-61000"),
        "{}",
        listed.out
    );
}

#[test]
fn shown_ruleset_loads_equal_in_nft() {
    let lines = [
        "-p tcp --sport 32768-61000 --to-ports 49152-61000 -o any --pick-up any",
        "--to-ports 1024 -o eth0,wg* --random --ipv4",
        "-p tcp,udp,udplite,sctp --to 1-65535 -o any --fully-random --persistent --ipv6",
    ];
    for line in lines {
        let (host, copy) = (Host::new("host").unwrap(), Host::new("copy").unwrap());
        assert_eq!(ephport(&host, &format!("apply {line}")).exit, Exit::Success);
        nft_load(&copy, &ephport(&host, &format!("show {line}")).out);
        // Our own fingerprint came along, so that status judges the copy too.
        assert_eq!(ephport(&copy, "status").exit, Exit::Success, "{line}");
        let again = ephport(&copy, &format!("apply {line}"));
        assert!(again.out.starts_with("unchanged"), "{line}: {}", again.out);
        assert_eq!(ok(&host, "nft list ruleset"), ok(&copy, "nft list ruleset"));
    }
}

#[test]
fn the_bytecode_is_that_of_nft() {
    let host = Host::new("host").unwrap();
    let line = "-p tcp --sport 32768-61000 --to-ports 49152-61000 -o wg* --pick-up opening";
    let ours = ephport(&host, &format!("show {line} --format bytecode")).out;
    let rule = ephport(&host, &format!("show {line}")).out;
    let printed = tool(&host, "nft", &["--debug=netlink", "-f", "-"], &rule);
    assert!(printed.success, "{printed:?}");
    let instructions = |text: &str| -> Vec<String> {
        text.lines().map(str::trim).filter(|l| l.starts_with('[')).map(Into::into).collect()
    };
    assert_eq!(instructions(&ours), instructions(&printed.out));
    assert!(instructions(&ours).len() > 15);
}
