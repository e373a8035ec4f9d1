//! The client against a kernel that we script: each answer it can give has its one verdict.

use std::collections::VecDeque;

use ephport_core::{HostFacts, Policy, PolicySpec, Target};
use ephport_nft::client::{NetlinkError, Transport};
use ephport_nft::expr::{Expr, Lookup, Payload, Register, Verdict};
use ephport_nft::object::{Chain, Comment, Elements, Rule, Set, Table};
use ephport_nft::ruleset::{FilledSet, SetName, TABLE};
use ephport_nft::uapi::{
    NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET,
    NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETRULE,
    NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWGEN,
    NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFTA_GEN_ID,
    NFTA_SET_ELEM_LIST_SET, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_MULTI, NLMSG_DONE, NLMSG_ERROR,
};
use ephport_nft::wire::{Header, Message, Messages, NfGenMsg, Reader, Writer};
use ephport_nft::{Applied, Error, Installed, Nftables, Ruleset, compile};
use nix::errno::Errno;

/// nf_tables of one namespace, as far as the client speaks with it.
#[derive(Default)]
struct Kernel {
    ruleset: Option<Ruleset>,
    generation: u32,
    /// Of the newest rule.
    handle: u64,
    answers: VecDeque<Vec<u8>>,
    batches: u32,
    /// What goes wrong with the next batches.
    batch_faults: VecDeque<BatchFault>,
    /// What goes wrong with the next lists.
    list_faults: VecDeque<ListFault>,
}

enum BatchFault {
    /// These operations fail so (0 is the batch's beginning), and the last is acknowledged or not.
    Fails { at: Vec<(u32, Errno)>, acked: bool },
    /// Nothing is answered.
    Silence,
    /// Somebody else commits just before.
    Overtaken,
}

enum ListFault {
    Refused(Errno),
    Interrupted,
    /// Empty, without a word, while somebody else commits.
    EmptyDuringCommit,
    /// Cut in the middle of a message.
    Cut,
}

impl Kernel {
    fn answer(&mut self, write: impl FnOnce(&mut Writer)) {
        let mut w = Writer::new();
        write(&mut w);
        self.answers.push_back(w.finish().unwrap());
    }

    fn acknowledge(&mut self, request: Header, errno: i32) {
        self.answer(|w| {
            w.message(Header { kind: NLMSG_ERROR, flags: 0, seq: request.seq }, |w| {
                w.raw(&(-errno).to_ne_bytes());
                w.message(request, |_| {});
            });
        });
    }

    fn list(&mut self, request: Header, kind: u16, bodies: Vec<Vec<u8>>) {
        let seq = request.seq;
        let (mut flags, mut bodies) = (NLM_F_MULTI, bodies);
        match self.list_faults.pop_front() {
            Some(ListFault::Refused(errno)) => return self.acknowledge(request, errno as i32),
            Some(ListFault::Interrupted) => flags |= NLM_F_DUMP_INTR,
            Some(ListFault::EmptyDuringCommit) => {
                bodies.clear();
                self.generation += 1;
            }
            Some(ListFault::Cut) => return self.answers.push_back(vec![200, 0, 0, 0, 1, 10, 0, 0]),
            None => {}
        }
        for body in bodies {
            self.answer(|w| w.message(Header::nf_tables(kind, flags, seq), |w| w.raw(&body)));
        }
        self.answer(|w| {
            w.message(Header { kind: NLMSG_DONE, flags, seq }, |w| w.raw(&[0; 4]));
        });
    }

    fn get(&mut self, request: Header, asked: &[u8]) {
        let ruleset = self.ruleset.clone();
        let body = |write: &dyn Fn(&mut Writer)| {
            let mut w = Writer::new();
            write(&mut w);
            w.finish().unwrap()
        };
        match request.nf_tables_message() {
            Some(NFT_MSG_GETGEN) => {
                let (seq, generation) = (request.seq, self.generation);
                self.answer(|w| {
                    w.message(Header::nf_tables(NFT_MSG_NEWGEN, 0, seq), |w| {
                        w.raw(&NfGenMsg::new(0).to_bytes());
                        w.u32_be(NFTA_GEN_ID, generation);
                    });
                });
                self.acknowledge(request, 0);
            }
            Some(NFT_MSG_GETTABLE) => {
                let bodies = ruleset.iter().map(|r| body(&|w| r.table.write(w))).collect();
                self.list(request, NFT_MSG_NEWTABLE, bodies);
            }
            Some(NFT_MSG_GETCHAIN) => {
                let chains = ruleset.iter().flat_map(|r| &r.chains);
                let bodies = chains.map(|chain| body(&|w| chain.write(w))).collect();
                self.list(request, NFT_MSG_NEWCHAIN, bodies);
            }
            Some(NFT_MSG_GETSET) => {
                let sets = ruleset.iter().flat_map(|r| &r.sets);
                let bodies = sets.map(|filled| body(&|w| filled.set.write(w))).collect();
                self.list(request, NFT_MSG_NEWSET, bodies);
            }
            Some(NFT_MSG_GETSETELEM) => {
                let name = set_name(asked);
                let mut sets = ruleset.iter().flat_map(|r| &r.sets);
                let Some(filled) = sets.find(|filled| filled.set.name == name) else {
                    return self.acknowledge(request, Errno::ENOENT as i32);
                };
                let bodies = messages_of(filled).into_iter().map(|part| body(&|w| part.write(w)));
                self.list(request, NFT_MSG_NEWSETELEM, bodies.collect());
            }
            Some(NFT_MSG_GETRULE) => {
                let rules = ruleset.iter().flat_map(|r| &r.rules);
                let bodies = rules.map(|rule| body(&|w| rule.write(w))).collect();
                self.list(request, NFT_MSG_NEWRULE, bodies);
            }
            other => panic!("unexpected request {other:?}"),
        }
    }

    fn batch(&mut self, messages: &[Message<'_>]) {
        self.batches += 1;
        let begin = messages[0].header;
        match self.batch_faults.pop_front() {
            Some(BatchFault::Fails { at, acked }) => {
                for (index, errno) in at {
                    self.acknowledge(messages[index as usize].header, errno as i32);
                }
                if acked {
                    self.acknowledge(messages[messages.len() - 2].header, 0);
                }
                return;
            }
            Some(BatchFault::Silence) => return,
            Some(BatchFault::Overtaken) => self.generation += 1,
            None => {}
        }
        if batch_generation(messages[0].body) != self.generation {
            return self.acknowledge(begin, Errno::ERESTART as i32);
        }
        for message in &messages[1..messages.len() - 1] {
            self.operate(*message);
            if message.header.flags & NLM_F_ACK != 0 {
                self.acknowledge(message.header, 0);
            }
        }
        self.generation += 1;
    }

    fn operate(&mut self, message: Message<'_>) {
        match message.header.nf_tables_message() {
            Some(NFT_MSG_NEWTABLE) => {
                let table = Table::read(message.body).unwrap();
                let new =
                    || Ruleset { table, chains: Vec::new(), sets: Vec::new(), rules: Vec::new() };
                self.ruleset.get_or_insert_with(new);
            }
            Some(NFT_MSG_DELTABLE) => self.ruleset = None,
            Some(NFT_MSG_NEWCHAIN) => {
                self.ruleset.as_mut().unwrap().chains.push(Chain::read(message.body).unwrap());
            }
            Some(NFT_MSG_NEWSET) => {
                let set = Set::read(message.body).unwrap();
                assert!(set.id.is_some(), "the kernel asks for a number");
                let set = Set { id: None, ..set };
                let sets = &mut self.ruleset.as_mut().unwrap().sets;
                sets.push(FilledSet { set, elements: Vec::new() });
            }
            Some(NFT_MSG_NEWSETELEM) => {
                let Elements { set, elements, .. } = Elements::read(message.body).unwrap();
                let mut sets = self.ruleset.as_mut().unwrap().sets.iter_mut();
                let filled = sets.find(|filled| filled.set.name == set).unwrap();
                filled.elements.extend(elements);
            }
            Some(NFT_MSG_NEWRULE) => {
                self.handle += 1;
                let rule = Rule::read(message.body).unwrap();
                let rules = &mut self.ruleset.as_mut().unwrap().rules;
                let before = rule.position.map(|position| rule_at(rules, position));
                let rule = Rule { handle: Some(self.handle), position: None, ..rule };
                rules.insert(before.unwrap_or(rules.len()), rule);
            }
            Some(NFT_MSG_DELRULE) => {
                let handle = Rule::read(message.body).unwrap().handle.unwrap();
                let ruleset = self.ruleset.as_mut().unwrap();
                let gone = ruleset.rules.remove(rule_at(&ruleset.rules, handle));
                // Anonymous sets go with their rule.
                let uses = |name: &str| {
                    let is_use = |expr: &Expr| matches!(expr, Expr::Lookup(l) if l.set == name);
                    gone.exprs.iter().any(is_use)
                };
                ruleset.sets.retain(|filled| !filled.set.is_anonymous() || !uses(&filled.set.name));
            }
            Some(NFT_MSG_DELCHAIN) => {
                let name = Chain::read(message.body).unwrap().name;
                self.ruleset.as_mut().unwrap().chains.retain(|chain| chain.name != name);
            }
            Some(NFT_MSG_DELSET) => {
                let name = Set::read(message.body).unwrap().name;
                self.ruleset.as_mut().unwrap().sets.retain(|filled| filled.set.name != name);
            }
            Some(NFT_MSG_DELSETELEM) => {
                let Elements { set, elements, .. } = Elements::read(message.body).unwrap();
                let mut sets = self.ruleset.as_mut().unwrap().sets.iter_mut();
                let filled = sets.find(|filled| filled.set.name == set).unwrap();
                filled.elements.retain(|held| elements.iter().all(|gone| gone.key != held.key));
            }
            other => panic!("unexpected operation {other:?}"),
        }
    }
}

/// Where the rule with this handle stands.
fn rule_at(rules: &[Rule], handle: u64) -> usize {
    rules.iter().position(|rule| rule.handle == Some(handle)).expect("ENOENT")
}

/// The set that is asked for.
fn set_name(asked: &[u8]) -> String {
    let mut reader = Reader::new(asked);
    NfGenMsg::read(&mut reader).unwrap();
    let mut attrs = reader.attrs().map(Result::unwrap);
    let name = attrs.find(|attr| attr.kind == NFTA_SET_ELEM_LIST_SET).unwrap();
    name.string().unwrap().into()
}

/// Its elements as the kernel lists them: from the last one, in several messages.
fn messages_of(filled: &FilledSet) -> Vec<Elements> {
    let Set { family, table, name, .. } = &filled.set;
    let (family, table, set) = (*family, table.clone(), name.clone());
    let message = |elements| Elements {
        family,
        table: table.clone(),
        set: set.clone(),
        set_id: None,
        elements,
    };
    let elements: Vec<_> = filled.elements.iter().rev().cloned().collect();
    elements.chunks(500).map(|part| message(part.to_vec())).collect()
}

fn batch_generation(body: &[u8]) -> u32 {
    let mut reader = Reader::new(body);
    NfGenMsg::read(&mut reader).unwrap();
    let attr = reader.attrs().next().unwrap().unwrap();
    assert_eq!(attr.kind, NFNL_BATCH_GENID);
    attr.u32_be().unwrap()
}

impl Transport for &mut Kernel {
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let messages: Vec<_> = Messages::new(datagram).map(Result::unwrap).collect();
        if messages[0].header.kind == NFNL_MSG_BATCH_BEGIN {
            self.batch(&messages);
        } else {
            self.get(messages[0].header, messages[0].body);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        Ok(self.answers.pop_front())
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        self.answers.pop_front().ok_or(NetlinkError::Silent { seconds: 10 })
    }
}

fn ruleset(range: &str) -> Ruleset {
    let policy = Policy::new(PolicySpec::to(Target::Ports(range.parse().unwrap()))).unwrap();
    let uplinks = vec!["eth0".parse().unwrap()];
    compile(&[policy.resolve(&HostFacts { uplinks, ..HostFacts::default() }).unwrap()]).unwrap()
}

#[test]
fn apply_installs_then_changes_nothing_then_replaces_then_remove_takes_away() {
    let (first, second) = (ruleset("49152-61000"), ruleset("1024-2047"));
    let mut kernel = Kernel::default();
    assert_eq!(Nftables::over(&mut kernel).plan(&first), Ok(Applied::Installed));
    assert_eq!(kernel.batches, 0);
    assert_eq!(Nftables::over(&mut kernel).apply(&first), Ok(Applied::Installed));
    assert_eq!(Nftables::over(&mut kernel).apply(&first), Ok(Applied::Unchanged));
    assert_eq!(kernel.batches, 1);
    assert_eq!(Nftables::over(&mut kernel).apply(&second), Ok(Applied::Replaced));
    assert_eq!(kernel.ruleset.as_ref().map(Ruleset::essence), Some(second.essence()));
    assert_eq!(Nftables::over(&mut kernel).remove(), Ok(true));
    assert_eq!(Nftables::over(&mut kernel).remove(), Ok(false));
    assert_eq!((kernel.ruleset, kernel.batches), (None, 3));
}

/// A ruleset with a large anonymous map, and a rule that uses it.
fn ruleset_with_a_set() -> Ruleset {
    let verdicts = vec![Verdict::Accept; 5000];
    let map = FilledSet::number_verdicts(SetName::Anonymous(7), &verdicts);
    let plain = ruleset("49152-61000");
    let exprs =
        vec![Payload::SOURCE_PORT.into(), Lookup::value(&map.set, Register::VERDICT).into()];
    let mut rules = plain.rules;
    rules.push(Rule::new(map.set.family, TABLE, "postrouting", exprs));
    Ruleset { rules, sets: vec![map], ..plain }.signed().unwrap()
}

#[test]
fn sets_are_applied_before_the_rules_that_use_them_and_read_back_whatever_their_name() {
    let desired = ruleset_with_a_set();
    let mut kernel = Kernel::default();
    assert_eq!(Nftables::over(&mut kernel).apply(&desired), Ok(Applied::Installed));
    assert_eq!(kernel.ruleset.as_ref().map(Ruleset::essence), Some(desired.essence()));
    let held = kernel.ruleset.as_mut().unwrap();
    held.sets[0].set.name = "__map0".into();
    let Some(Expr::Lookup(lookup)) = held.rules.last_mut().unwrap().exprs.last_mut() else {
        panic!("no lookup");
    };
    lookup.set = "__map0".into();
    assert_eq!(Nftables::over(&mut kernel).apply(&desired), Ok(Applied::Unchanged));
    kernel.ruleset.as_mut().unwrap().sets[0].elements.pop();
    assert_eq!(Nftables::over(&mut kernel).apply(&desired), Ok(Applied::Replaced));
    assert_eq!(kernel.ruleset.as_ref().map(Ruleset::essence), Some(desired.essence()));
}

#[test]
fn a_failure_names_the_set() {
    let cases = [
        (5, "the kernel refused to add set __map7 (EEXIST: File exists)"),
        (6, "the kernel refused to add 1536 elements to set __map7 (EEXIST: File exists)"),
    ];
    for (at, message) in cases {
        let fault = BatchFault::Fails { at: vec![(at, Errno::EEXIST)], acked: false };
        let mut kernel = Kernel { batch_faults: [fault].into(), ..Kernel::default() };
        let error = Nftables::over(&mut kernel).apply(&ruleset_with_a_set()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_changed_rule_is_drift_and_apply_mends_it() {
    let desired = ruleset("49152-61000");
    let mut kernel = Kernel { ruleset: Some(desired.clone()), ..Kernel::default() };
    let intact = |kernel: &mut Kernel| match Nftables::over(kernel).installed().unwrap() {
        Installed::Ours { intact, .. } => intact,
        other => panic!("{other:?}"),
    };
    assert!(intact(&mut kernel));
    kernel.ruleset.as_mut().unwrap().rules.pop();
    assert!(!intact(&mut kernel));
    assert_eq!(Nftables::over(&mut kernel).apply(&desired), Ok(Applied::Replaced));
    assert!(intact(&mut kernel));
}

#[test]
fn a_table_of_somebody_else_is_left_alone() {
    let mut foreign = ruleset("49152-61000");
    foreign.table.userdata = Some(Comment::new("mine").to_userdata());
    for userdata in [foreign.table.userdata.clone(), None] {
        foreign.table.userdata = userdata;
        let mut kernel = Kernel { ruleset: Some(foreign.clone()), ..Kernel::default() };
        let error = Nftables::over(&mut kernel).apply(&ruleset("1-2")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "table inet ephport exists but ephport did not make it: look at it with \
             `nft list table inet ephport`, and rename or delete it"
        );
        assert_eq!(Nftables::over(&mut kernel).remove(), Err(Error::Foreign));
        assert_eq!((kernel.ruleset.as_ref(), kernel.batches), (Some(&foreign), 0));
    }
}

/// Applies once over a kernel whose first batch fails so.
fn apply_with(fault: BatchFault) -> (Result<Applied, Error>, Kernel) {
    let mut kernel = Kernel { batch_faults: [fault].into(), ..Kernel::default() };
    let result = Nftables::over(&mut kernel).apply(&ruleset("49152-61000"));
    (result, kernel)
}

#[test]
fn each_failure_of_a_transaction_has_its_message() {
    let fails = |at: u32, errno| BatchFault::Fails { at: vec![(at, errno)], acked: false };
    let cases = [
        (
            fails(0, Errno::EPERM),
            "the kernel asks for CAP_NET_ADMIN to change the ruleset: run as root, \
             or in a user and network namespace of your own",
        ),
        (
            fails(0, Errno::EOPNOTSUPP),
            "the kernel has no nf_tables: load it with `modprobe nf_tables`, \
             or use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET",
        ),
        (
            fails(0, Errno::ENOMEM),
            "the kernel refused to take a transaction (ENOMEM: Out of memory)",
        ),
        (
            fails(4, Errno::EOPNOTSUPP),
            "the kernel refused to add chain postrouting \
             (EOPNOTSUPP: Operation not supported on transport endpoint): \
             the kernel does not support it",
        ),
        (
            fails(7, Errno::ENOENT),
            "the kernel refused to add a rule of policy default to chain postrouting \
             (ENOENT: No such file or directory): a kernel module may be missing; \
             expected nft_chain_nat, nft_masq, nft_ct, nft_fib_inet",
        ),
        (
            BatchFault::Silence,
            "the kernel did not confirm the transaction: \
             run `ephport-nft status` to see its state",
        ),
    ];
    for (fault, message) in cases {
        let (result, kernel) = apply_with(fault);
        assert_eq!(result.unwrap_err().to_string(), message);
        assert_eq!(kernel.ruleset, None);
    }
}

#[test]
fn an_error_outweighs_an_acknowledgement_and_the_first_is_the_cause() {
    let at = vec![(5, Errno::ENOENT), (4, Errno::EINVAL), (6, Errno::ENOENT)];
    let (result, _) = apply_with(BatchFault::Fails { at, acked: true });
    assert!(matches!(result, Err(Error::Refused { errno: Errno::EINVAL, .. })), "{result:?}");
}

#[test]
fn overtaken_transactions_are_tried_again_but_not_for_ever() {
    let (result, kernel) = apply_with(BatchFault::Overtaken);
    assert_eq!((result, kernel.batches), (Ok(Applied::Installed), 2));

    let batch_faults = (0..100).map(|_| BatchFault::Overtaken).collect();
    let mut kernel = Kernel { batch_faults, ..Kernel::default() };
    let error = Nftables::over(&mut kernel).apply(&ruleset("1-2")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the ruleset was changed by somebody else 32 times in a row: try again"
    );
}

/// Reads once over a kernel that holds a table and whose first lists fail so.
fn installed_with(list_faults: Vec<ListFault>) -> Result<Installed, Error> {
    let ruleset = Some(ruleset("49152-61000"));
    let mut kernel = Kernel { ruleset, list_faults: list_faults.into(), ..Kernel::default() };
    Nftables::over(&mut kernel).installed()
}

#[test]
fn a_list_that_was_disturbed_is_read_again() {
    for fault in [ListFault::Interrupted, ListFault::EmptyDuringCommit] {
        let installed = installed_with(vec![fault]).unwrap();
        assert!(matches!(installed, Installed::Ours { intact: true, .. }), "{installed:?}");
    }
}

#[test]
fn each_failure_of_a_list_has_its_message() {
    let cases = [
        (
            ListFault::Refused(Errno::EPERM),
            "the kernel asks for CAP_NET_ADMIN to read the ruleset: run as root, \
             or in a user and network namespace of your own",
        ),
        (
            ListFault::Refused(Errno::EOPNOTSUPP),
            "the kernel has no nf_tables: load it with `modprobe nf_tables`, \
             or use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET",
        ),
        (
            ListFault::Refused(Errno::ENOMEM),
            "the kernel refused to list its objects (ENOMEM: Out of memory)",
        ),
        (ListFault::Cut, "the kernel's answer cannot be read: nlmsghdr needs 4 bytes, 0 are left"),
    ];
    for (fault, message) in cases {
        assert_eq!(installed_with(vec![fault]).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_kernel_that_never_ends_its_list_is_not_waited_for() {
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
    let error = Nftables::over(Mute).installed().unwrap_err();
    assert_eq!(error.to_string(), "the kernel did not answer a netlink request within 10 s");
}
