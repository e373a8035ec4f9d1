//! The client against a kernel that we script: each answer it can give has its one verdict.

use std::collections::VecDeque;

use ephport_core::{HostFacts, Policy, PolicySpec, Target};
use ephport_nft::client::{NetlinkError, Transport};
use ephport_nft::object::{Chain, Comment, Rule, Table};
use ephport_nft::uapi::{
    NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETGEN,
    NFT_MSG_GETRULE, NFT_MSG_GETTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWGEN, NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE, NFTA_GEN_ID, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_MULTI, NLMSG_DONE,
    NLMSG_ERROR,
};
use ephport_nft::wire::{Header, Message, Messages, NfGenMsg, Reader, Writer};
use ephport_nft::{Applied, Error, Installed, Nftables, Ruleset, compile};
use nix::errno::Errno;

/// nf_tables of one namespace, as far as the client speaks with it.
#[derive(Default)]
struct Kernel {
    ruleset: Option<Ruleset>,
    generation: u32,
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

    fn get(&mut self, request: Header) {
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
                let new = || Ruleset { table, chains: Vec::new(), rules: Vec::new() };
                self.ruleset.get_or_insert_with(new);
            }
            Some(NFT_MSG_DELTABLE) => self.ruleset = None,
            Some(NFT_MSG_NEWCHAIN) => {
                self.ruleset.as_mut().unwrap().chains.push(Chain::read(message.body).unwrap());
            }
            Some(NFT_MSG_NEWRULE) => {
                self.ruleset.as_mut().unwrap().rules.push(Rule::read(message.body).unwrap());
            }
            other => panic!("unexpected operation {other:?}"),
        }
    }
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
            self.get(messages[0].header);
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
    assert_eq!(kernel.ruleset.as_ref(), Some(&second));
    assert_eq!(Nftables::over(&mut kernel).remove(), Ok(true));
    assert_eq!(Nftables::over(&mut kernel).remove(), Ok(false));
    assert_eq!((kernel.ruleset, kernel.batches), (None, 3));
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
