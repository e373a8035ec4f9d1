//! The client with a scripted kernel: each answer has one result.

mod scripted;

use std::time::Duration;

use ephport_core::{HostFacts, MapE, Policy, PortRange};
use ephport_nft::Errno;
use ephport_nft::client::{Interrupt, Options};
use ephport_nft::netlink::{NetlinkError, Transport};
use ephport_nft::nftables::expr::{Expr, Immediate, Lookup, Payload, Register, Verdict};
use ephport_nft::nftables::{Comment, Generation, Rule};
use ephport_nft::table::layout::{TABLE, TableId};
use ephport_nft::table::{Set, SetName};
use ephport_nft::{Applied, Client, Error, Installed, Plan, TableState};
use expect_test::expect;
use scripted::{BatchFault, Kernel, ListFault, ruleset};

#[test]
fn apply_is_idempotent_and_remove_deletes_the_table() {
    let (first, second) = (ruleset("49152-61000"), ruleset("1024-2047"));
    let mut kernel = Kernel::default();
    assert_eq!(Client::with_transport(&mut kernel).dry_run(&first), Ok(Applied::Installed));
    assert_eq!(kernel.batches, 0);
    assert_eq!(Client::with_transport(&mut kernel).apply(&first), Ok(Applied::Installed));
    assert_eq!(Client::with_transport(&mut kernel).apply(&first), Ok(Applied::Unchanged));
    assert_eq!(kernel.batches, 1);
    assert_eq!(Client::with_transport(&mut kernel).apply(&second), Ok(Applied::Updated));
    assert_eq!(kernel.ruleset.as_ref().map(TableState::normalized), Some(second.normalized()));
    assert_eq!(Client::with_transport(&mut kernel).remove(), Ok(true));
    assert_eq!(Client::with_transport(&mut kernel).remove(), Ok(false));
    assert_eq!((kernel.ruleset, kernel.batches), (None, 3));
}

/// A ruleset with a large anonymous map, and a rule that uses it.
fn ruleset_with_a_set() -> TableState {
    let verdicts = vec![Verdict::Accept; 5000];
    let map = Set::number_verdicts(SetName::Anonymous(7), &verdicts);
    let plain = ruleset("49152-61000");
    let exprs =
        vec![Payload::SOURCE_PORT.into(), Lookup::value(&map.spec.name, Register::VERDICT).into()];
    let mut rules = plain.rules;
    rules.push(Rule::new(map.spec.family, TABLE, "postrouting", exprs));
    TableState { rules, sets: vec![map], ..plain }.signed().unwrap()
}

#[test]
fn anonymous_sets_are_equal_under_any_name() {
    let desired = ruleset_with_a_set();
    let mut kernel = Kernel::default();
    assert_eq!(Client::with_transport(&mut kernel).apply(&desired), Ok(Applied::Installed));
    assert_eq!(kernel.ruleset.as_ref().map(TableState::normalized), Some(desired.normalized()));
    let held = kernel.ruleset.as_mut().unwrap();
    held.sets[0].spec.name = "__map0".into();
    let Some(Expr::Lookup(lookup)) = held.rules.last_mut().unwrap().exprs.last_mut() else {
        panic!("no lookup");
    };
    lookup.set = "__map0".into();
    assert_eq!(Client::with_transport(&mut kernel).apply(&desired), Ok(Applied::Unchanged));
    kernel.ruleset.as_mut().unwrap().sets[0].elements.edit(Vec::pop);
    assert_eq!(Client::with_transport(&mut kernel).apply(&desired), Ok(Applied::Updated));
    assert_eq!(kernel.ruleset.as_ref().map(TableState::normalized), Some(desired.normalized()));
}

#[test]
fn a_failure_names_the_set() {
    let messages = [5, 6].map(|at| {
        let fault = BatchFault::Fails { at: vec![(at, Errno::EEXIST)], acked: false };
        let mut kernel = Kernel { batch_faults: [fault].into(), ..Kernel::default() };
        Client::with_transport(&mut kernel).apply(&ruleset_with_a_set()).unwrap_err().to_string()
    });
    expect![[r#"
        the kernel refused to add set __map7 (EEXIST: File exists): an object with this name and another type exists
        the kernel refused to add 1536 elements to set __map7 (EEXIST: File exists): an object with this name and another type exists"#]].assert_eq(&messages.join("\n"));
}

#[test]
fn changed_rule_is_drift_and_apply_restores_it() {
    let desired = ruleset("49152-61000");
    let mut kernel = Kernel { ruleset: Some(desired.clone()), ..Kernel::default() };
    let intact = |kernel: &mut Kernel| match Client::with_transport(kernel).installed().unwrap() {
        Installed::Ours { intact, .. } => intact,
        other => panic!("{other:?}"),
    };
    assert!(intact(&mut kernel));
    kernel.ruleset.as_mut().unwrap().rules.pop();
    assert!(!intact(&mut kernel));
    assert_eq!(Client::with_transport(&mut kernel).apply(&desired), Ok(Applied::Updated));
    assert!(intact(&mut kernel));
}

#[test]
fn named_object_in_our_table_is_drift() {
    let desired = ruleset("49152-61000");
    let objects = vec![(1, "seen"), (2, "much")];
    let mut kernel = Kernel { ruleset: Some(desired.clone()), objects, ..Kernel::default() };
    let installed = Client::with_transport(&mut kernel).installed().unwrap();
    assert!(matches!(installed, Installed::Ours { intact: false, .. }), "{installed:?}");
    let drifts: Vec<_> =
        installed.drift(&desired).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(drifts, ["counter seen belongs to no policy", "quota much belongs to no policy"]);
    assert_eq!(Client::with_transport(&mut kernel).apply(&desired), Ok(Applied::Replaced));
    assert_eq!(Client::with_transport(&mut kernel).apply(&desired), Ok(Applied::Unchanged));
    assert_eq!(kernel.objects, []);
}

#[test]
fn clients_own_tables_by_name_and_owner() {
    fn client<'a>(kernel: &'a mut Kernel, id: &TableId) -> Client<&'a mut Kernel> {
        Client::with_transport(kernel).for_table(id.clone())
    }

    let id = TableId::new("nodes", "node agent").unwrap().with_priority(95).unwrap();
    let desired = ruleset("49152-61000").in_table(&id).unwrap();
    let mut kernel = Kernel::default();
    assert_eq!(client(&mut kernel, &id).apply(&desired), Ok(Applied::Installed));
    assert_eq!(client(&mut kernel, &id).apply(&desired), Ok(Applied::Unchanged));
    let held = kernel.ruleset.as_ref().unwrap();
    assert_eq!(held.chains[0].hook.as_ref().map(|hook| hook.priority), Some(95));
    assert!(matches!(
        client(&mut kernel, &id).installed(),
        Ok(Installed::Ours { intact: true, .. })
    ));
    // Its priority is no drift.
    let status = client(&mut kernel, &id).installed().unwrap().status(None);
    assert_eq!(status.drift, []);
    // The same name with another owner.
    let other = TableId::new("nodes", "another agent").unwrap();
    let installed = Client::with_transport(&mut kernel).for_table(other).installed();
    assert!(matches!(installed, Ok(Installed::Foreign(_))), "{installed:?}");
}

#[test]
fn a_state_of_another_table_is_never_applied() {
    let id = TableId::new("nodes", "node agent").unwrap();
    let stranger = ruleset("1024-2047").in_table(&id).unwrap();
    let mut kernel = Kernel { ruleset: Some(stranger.clone()), ..Kernel::default() };
    let error = Client::with_transport(&mut kernel).apply(&stranger).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot apply a state of table inet nodes: this client changes table inet ephport"
    );
    assert_eq!(kernel.batches, 0);
}

#[test]
fn a_state_of_another_owner_is_never_applied() {
    let id = TableId::new("nodes", "node agent").unwrap();
    let mut kernel = Kernel::default();
    let mut stranger = ruleset("1024-2047").in_table(&id).unwrap();
    let expected = TableId::new("nodes", "me").unwrap();
    let mut messages = Vec::new();
    for userdata in [stranger.table.userdata.clone(), None] {
        stranger.table.userdata = userdata;
        let mut client = Client::with_transport(&mut kernel).for_table(expected.clone());
        messages.push(client.apply(&stranger).unwrap_err());
    }
    let owner = || Some("node agent".to_string());
    let error = |owner| Error::OtherOwner { table: "nodes".into(), owner, expected: "me".into() };
    assert_eq!(messages, [error(owner()), error(None)]);
    expect![[r#"
        cannot apply a state of table inet nodes with the owner "node agent": the owner of this client is "me"
        cannot apply a state of table inet nodes with no owner: the owner of this client is "me""#]]
    .assert_eq(&messages.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    assert_eq!(kernel.batches, 0);
}

#[test]
fn table_of_another_owner_is_not_changed() {
    let mut foreign = ruleset("49152-61000");
    foreign.table.userdata = Some(Comment::new("mine").to_userdata());
    for userdata in [foreign.table.userdata.clone(), None] {
        foreign.table.userdata = userdata;
        let mut kernel = Kernel { ruleset: Some(foreign.clone()), ..Kernel::default() };
        let error = Client::with_transport(&mut kernel).apply(&ruleset("1-2")).unwrap_err();
        assert_eq!(error, Error::Foreign { table: TABLE.into() });
        assert_eq!(
            Client::with_transport(&mut kernel).remove(),
            Err(Error::Foreign { table: TABLE.into() })
        );
        let held = kernel.ruleset.as_ref().map(TableState::normalized);
        assert_eq!((held, kernel.batches), (Some(foreign.normalized()), 0));
    }
}

/// Applies once over a kernel whose first batch fails so.
fn apply_with(fault: BatchFault) -> (Result<Applied, Error>, Kernel) {
    let mut kernel = Kernel { batch_faults: [fault].into(), ..Kernel::default() };
    let result = Client::with_transport(&mut kernel).apply(&ruleset("49152-61000"));
    (result, kernel)
}

#[test]
fn each_failure_of_a_transaction_has_its_message() {
    let fails = |at: u32, errno| BatchFault::Fails { at: vec![(at, errno)], acked: false };
    let faults = [
        fails(0, Errno::EPERM),
        fails(0, Errno::EOPNOTSUPP),
        fails(0, Errno::ENOMEM),
        fails(4, Errno::EOPNOTSUPP),
        fails(1, Errno::EBUSY),
        fails(1, Errno::EPERM),
        fails(9, Errno::ENOENT),
        BatchFault::Silence,
    ];
    let messages = faults.map(|fault| {
        let (result, kernel) = apply_with(fault);
        assert_eq!(kernel.ruleset, None);
        result.unwrap_err().to_string()
    });
    expect![[r#"
        permission denied: changing the ruleset requires CAP_NET_ADMIN
        the kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)
        the kernel refused to process a transaction (ENOMEM: Out of memory): the kernel or the memory control group of this process has no memory left
        the kernel refused to add chain postrouting (EOPNOTSUPP: Operation not supported on transport endpoint): this kernel does not support it; expected Linux 5.10 or later with all of CONFIG_NFT_*
        the kernel refused to add table ephport (EBUSY: Device or resource busy): another object uses it
        table inet ephport is owned by another process: only its owner may change it
        the kernel refused to add rule 1 of policy default to chain postrouting (ENOENT: No such file or directory): a kernel module may be missing; expected nft_chain_nat, nft_masq, nft_ct, nft_fib_inet
        the kernel did not commit the transaction and gave no reason"#]].assert_eq(&messages.join("\n"));
}

#[test]
fn too_long_rule_is_not_sent() {
    let mut long = ruleset("49152-61000");
    let held = long.clone();
    let rule = long.rules.last_mut().unwrap();
    rule.exprs = vec![Immediate::verdict(Verdict::Continue).into(); 2_000].into();
    let mut kernel = Kernel { ruleset: Some(held.clone()), ..Kernel::default() };
    let error = Client::with_transport(&mut kernel).apply(&long).unwrap_err();
    let expected = "the ruleset cannot be encoded: attribute 4 would be ";
    assert!(error.to_string().starts_with(expected), "{error}");
    let still = kernel.ruleset.as_ref().map(TableState::normalized);
    assert_eq!((still, kernel.batches), (Some(held.normalized()), 0));
}

#[test]
fn first_error_outweighs_an_acknowledgement() {
    let at = vec![(5, Errno::ENOENT), (4, Errno::EINVAL), (6, Errno::ENOENT)];
    let (result, _) = apply_with(BatchFault::Fails { at, acked: true });
    assert!(
        matches!(&result, Err(Error::Rejected(refusal)) if refusal.errno == Errno::EINVAL),
        "{result:?}"
    );
}

#[test]
fn overtaken_transactions_are_retried_up_to_a_limit() {
    let (result, kernel) = apply_with(BatchFault::Overtaken);
    assert_eq!((result, kernel.batches), (Ok(Applied::Installed), 2));

    let batch_faults = (0..200).map(|_| BatchFault::Overtaken).collect();
    let mut kernel = Kernel { batch_faults, ..Kernel::default() };
    let error = Client::with_transport(&mut kernel).apply(&ruleset("1-2")).unwrap_err();
    assert_eq!(error, Error::Busy { tries: 128 });
}

/// The result of one read from a kernel with a table and these faults in its first dumps.
fn installed_with(list_faults: Vec<ListFault>) -> Result<Installed, Error> {
    let ruleset = Some(ruleset("49152-61000"));
    let mut kernel = Kernel { ruleset, list_faults: list_faults.into(), ..Kernel::default() };
    Client::with_transport(&mut kernel).installed()
}

#[test]
fn interrupted_dump_is_read_again() {
    for fault in [ListFault::Interrupted, ListFault::EmptyDuringCommit] {
        let installed = installed_with(vec![fault]).unwrap();
        assert!(matches!(installed, Installed::Ours { intact: true, .. }), "{installed:?}");
    }
}

#[test]
fn each_failure_of_a_list_has_its_message() {
    let faults = [
        ListFault::Refused(Errno::EPERM),
        ListFault::Refused(Errno::EOPNOTSUPP),
        ListFault::Refused(Errno::ENOMEM),
        ListFault::EndsWith(Errno::ENOMEM),
        ListFault::Cut,
    ];
    let messages = faults.map(|fault| installed_with(vec![fault]).unwrap_err().to_string());
    expect![[r#"
        permission denied: reading the ruleset requires CAP_NET_ADMIN
        the kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)
        the kernel refused to list its objects (ENOMEM: Out of memory)
        the kernel refused to list its objects (ENOMEM: Out of memory)
        the kernel's answer cannot be decoded: nlmsghdr needs 4 bytes, 0 are left"#]]
    .assert_eq(&messages.join("\n"));
}

#[test]
fn endless_dump_times_out() {
    struct Mute;
    impl Transport for Mute {
        fn send(&mut self, _datagram: &[u8]) -> Result<(), NetlinkError> {
            Ok(())
        }
        fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
            Ok(None)
        }
        fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
            Err(NetlinkError::Silent { seconds: 10 })
        }
    }
    let error = Client::with_transport(Mute).installed().unwrap_err();
    assert_eq!(error.to_string(), "the kernel did not answer a netlink request within 10 s");
}

/// The answers of kernels to the question whether they can assign timeouts to connections.
#[test]
fn default_timeouts_depend_on_the_kernel() {
    let fails = |at: u32, errno| BatchFault::Fails { at: vec![(at, errno)], acked: false };
    for (fault, timeouts, warnings) in [
        (fails(2, Errno::ENOENT), Some(false), &["no-timeouts"][..]),
        (fails(2, Errno::EOPNOTSUPP), Some(false), &["no-timeouts"]),
        (fails(4, Errno::ENOENT), Some(false), &["no-timeouts"]),
        (fails(5, Errno::ENOENT), Some(true), &[]),
        (fails(0, Errno::EPERM), None, &[]),
    ] {
        let map_e: MapE = "psid=52,psid-len=8,offset=4".parse().unwrap();
        let policy = Policy::to(map_e).out_any().build().unwrap();
        let mut scripted = Kernel { batch_faults: [fault].into(), ..Kernel::default() };
        let mut client = Client::with_transport(&mut scripted);
        let facts = client.complete(HostFacts::default(), std::slice::from_ref(&policy));
        assert_eq!(facts.timeouts, timeouts);
        let plan = Plan::new([&policy], &facts).unwrap();
        assert_eq!(plan.table.timeouts.is_empty(), timeouts == Some(false));
        let found: Vec<_> = plan.warnings.iter().map(ephport_core::Warning::name).collect();
        assert_eq!(found, warnings);
        assert_eq!(scripted.ruleset, None);
    }
    // A policy without such a default asks for nothing, and one with timeouts of its own needs them.
    let range: PortRange = "49152-61000".parse().unwrap();
    let policy = Policy::to(range).out_any().with("timeouts", ["tcp-close=3"]).build().unwrap();
    let mut scripted = Kernel::default();
    let mut client = Client::with_transport(&mut scripted);
    let facts = client.complete(HostFacts::default(), std::slice::from_ref(&policy));
    assert_eq!((facts.timeouts, scripted.batches), (None, 0));
}

/// The answers of kernels to the question whether a table may be owned and outlive its owner.
#[test]
fn table_is_owned_only_where_it_outlives_its_owner() {
    let fails = |at: u32, errno| BatchFault::Fails { at: vec![(at, errno)], acked: false };
    for (kernel, fault, is_owner) in [
        ("Linux 5.10 has neither flag", fails(1, Errno::EINVAL), Ok(false)),
        ("Linux 6.1 has no flag `persist`", fails(1, Errno::EOPNOTSUPP), Ok(false)),
        ("Linux 6.9 has both", fails(2, Errno::ENOENT), Ok(true)),
        (
            "without the capability",
            fails(0, Errno::EPERM),
            Err(Error::NotPermitted { task: "changing" }),
        ),
    ] {
        let mut scripted = Kernel { batch_faults: [fault].into(), ..Kernel::default() };
        let client = Client::with_transport(&mut scripted).owning();
        assert_eq!(client.map(|client| client.is_owner()), is_owner, "{kernel}");
        assert_eq!(scripted.ruleset, None);
    }
}

#[test]
fn tries_of_the_options_bound_a_call() {
    let faults = || (0..9).map(|_| BatchFault::Overtaken).collect();
    let mut kernel = Kernel { batch_faults: faults(), ..Kernel::default() };
    let mut client = Options::new().tries(3.try_into().unwrap()).with_transport(&mut kernel);
    assert_eq!(client.apply(&ruleset("49152-61000")), Err(Error::Busy { tries: 3 }));
    assert_eq!(client.generations(), []);
    assert_eq!((kernel.batches, kernel.ruleset), (3, None));
}

#[test]
fn an_interrupted_or_late_call_changes_nothing() {
    let interrupt = Interrupt::new().unwrap();
    let desired = ruleset("49152-61000");
    let mut kernel = Kernel::default();
    let options = || Options::new().interrupted_by(&interrupt);
    interrupt.raise();
    let mut client = options().with_transport(&mut kernel);
    let cancelled = client.apply(&desired).unwrap_err();
    assert_eq!(client.installed(), Err(Error::Cancelled));
    let late = Options::new().deadline(Duration::ZERO).with_transport(&mut kernel).remove();
    let late = late.unwrap_err();
    assert_eq!((&cancelled, &late), (&Error::Cancelled, &Error::DeadlineExceeded));
    assert!(!cancelled.is_unconfirmed() && !late.is_unconfirmed());
    expect![[r#"
        the call was interrupted before a transaction was sent: the ruleset is as before
        the deadline passed before a transaction was sent: the ruleset is as before"#]]
    .assert_eq(&format!("{cancelled}\n{late}"));
    assert_eq!((kernel.batches, &kernel.ruleset), (0, &None));
    // The same client continues.
    interrupt.clear();
    let mut client = options().deadline(Duration::from_secs(60)).with_transport(&mut kernel);
    assert_eq!(client.apply(&desired), Ok(Applied::Installed));
}

#[test]
fn generations_are_those_of_the_last_call() {
    let mut kernel = Kernel { generation: u32::MAX - 1, ..Kernel::default() };
    let mut client = Client::with_transport(&mut kernel);
    client.apply(&ruleset("49152-61000")).unwrap();
    assert_eq!(client.generations(), [Generation(u32::MAX)]);
    client.apply(&ruleset("49152-61000")).unwrap();
    assert_eq!(client.generations(), []);
    assert_eq!(Generation(u32::MAX).next(), Generation(1));
}
