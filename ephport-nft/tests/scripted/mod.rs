//! A scripted kernel for the client.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::VecDeque;

use ephport_core::{Address, HostFacts, Policy, PortSet};
use ephport_nft::Errno;
use ephport_nft::netlink::{Header, Message, Messages, NfGenMsg, Reader, Writer};
use ephport_nft::netlink::{NetlinkError, Transport};
use ephport_nft::nftables::expr::Expr;
use ephport_nft::nftables::{Chain, Element, Elements, Rule, SetSpec, Table};
use ephport_nft::table::Set;
use ephport_nft::table::layout::{FAMILY, TABLE};
use ephport_nft::uapi::{
    NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET,
    NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETFLOWTABLE, NFT_MSG_GETGEN,
    NFT_MSG_GETOBJ, NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE,
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWGEN, NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFTA_GEN_ID, NFTA_OBJ_NAME, NFTA_OBJ_TABLE,
    NFTA_OBJ_TYPE, NFTA_RULE_CHAIN, NFTA_SET_ELEM_LIST_SET, NFTA_TABLE_NAME, NLM_F_ACK,
    NLM_F_DUMP_INTR, NLM_F_MULTI, NLMSG_DONE, NLMSG_ERROR,
};
use ephport_nft::{TableState, compile};

/// nf_tables of one namespace, as far as the client uses it.
#[derive(Default)]
pub(crate) struct Kernel {
    pub(crate) ruleset: Option<TableState>,
    pub(crate) generation: u32,
    /// Of the newest rule.
    pub(crate) handle: u64,
    pub(crate) answers: VecDeque<Vec<u8>>,
    pub(crate) batches: u32,
    /// What goes wrong with the next batches.
    pub(crate) batch_faults: VecDeque<BatchFault>,
    /// What goes wrong with the next lists.
    pub(crate) list_faults: VecDeque<ListFault>,
    /// Named objects in our table: type and name.
    pub(crate) objects: Vec<(u32, &'static str)>,
}

pub(crate) enum BatchFault {
    /// These operations fail so (0 is the batch's beginning), and the last is acknowledged or not.
    Fails { at: Vec<(u32, Errno)>, acked: bool },
    /// Nothing is answered.
    Silence,
    /// Another process commits just before.
    Overtaken,
}

pub(crate) enum ListFault {
    Refused(Errno),
    Interrupted,
    /// Empty without a flag, while another process commits.
    EmptyDuringCommit,
    /// Ended by `NLMSG_DONE` with an error.
    EndsWith(Errno),
    /// Cut in the middle of a message.
    Cut,
}

impl Kernel {
    fn answer(&mut self, write: impl FnOnce(&mut Writer)) {
        let mut w = Writer::new();
        write(&mut w);
        self.answers.push_back(w.finish().unwrap());
    }

    pub(crate) fn acknowledge(&mut self, request: Header, errno: i32) {
        self.answer(|w| {
            w.message(Header { message_type: NLMSG_ERROR, flags: 0, seq: request.seq }, |w| {
                w.raw(&(-errno).to_ne_bytes());
                w.message(request, |_| {});
            });
        });
    }

    fn list(&mut self, request: Header, kind: u16, bodies: Vec<Vec<u8>>) {
        let seq = request.seq;
        let (mut flags, mut bodies) = (NLM_F_MULTI, bodies);
        if kind != NFT_MSG_NEWSETELEM {
            bodies.insert(0, foreign_object());
        }
        let mut code = 0i32;
        match self.list_faults.pop_front() {
            Some(ListFault::EndsWith(errno)) => code = -(errno.raw()),
            Some(ListFault::Refused(errno)) => return self.acknowledge(request, errno.raw()),
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
            w.message(Header { message_type: NLMSG_DONE, flags, seq }, |w| {
                w.raw(&code.to_ne_bytes());
            });
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
                let bodies = ruleset.iter().map(|r| body(&|w| r.table.encode(w))).collect();
                self.list(request, NFT_MSG_NEWTABLE, bodies);
            }
            Some(NFT_MSG_GETCHAIN) => {
                let chains = ruleset.iter().flat_map(|r| &r.chains);
                let bodies = chains.map(|chain| body(&|w| chain.encode(w))).collect();
                self.list(request, NFT_MSG_NEWCHAIN, bodies);
            }
            Some(NFT_MSG_GETSET) => {
                let sets = ruleset.iter().flat_map(|r| &r.sets);
                let bodies = sets.map(|filled| body(&|w| filled.spec.encode(w))).collect();
                self.list(request, NFT_MSG_NEWSET, bodies);
            }
            Some(NFT_MSG_GETSETELEM) => {
                let name = name(asked, NFTA_SET_ELEM_LIST_SET);
                let mut sets = ruleset.iter().flat_map(|r| &r.sets);
                let Some(filled) = sets.find(|filled| filled.spec.name == name) else {
                    return self.acknowledge(request, Errno::ENOENT.raw());
                };
                let bodies = messages_of(filled).into_iter().map(|part| body(&|w| part.encode(w)));
                self.list(request, NFT_MSG_NEWSETELEM, bodies.collect());
            }
            Some(NFT_MSG_GETRULE) => {
                let chain = name(asked, NFTA_RULE_CHAIN);
                let rules = ruleset.iter().flat_map(|r| r.rules_of(&chain));
                let bodies = rules.map(|rule| body(&|w| rule.encode(w))).collect();
                self.list(request, NFT_MSG_NEWRULE, bodies);
            }
            Some(NFT_MSG_GETOBJ) => {
                let object = |(object_type, name): &(u32, &str)| {
                    body(&|w| {
                        w.raw(&NfGenMsg::new(FAMILY).to_bytes());
                        w.string(NFTA_OBJ_TABLE, TABLE);
                        w.string(NFTA_OBJ_NAME, name);
                        w.u32_be(NFTA_OBJ_TYPE, *object_type);
                    })
                };
                let bodies = self.objects.iter().map(object).collect();
                self.list(request, NFT_MSG_NEWOBJ, bodies);
            }
            // A kernel without flowtables.
            Some(NFT_MSG_GETFLOWTABLE) => self.acknowledge(request, Errno::EOPNOTSUPP.raw()),
            other => panic!("unexpected request {other:?}"),
        }
    }

    fn batch(&mut self, messages: &[Message<'_>]) {
        let begin = messages[0].header;
        if messages.len() == 2 {
            // An empty one is no transaction.
            if batch_generation(messages[0].body) != self.generation {
                self.acknowledge(begin, Errno::ERESTART.raw());
            }
            return;
        }
        self.batches += 1;
        match self.batch_faults.pop_front() {
            Some(BatchFault::Fails { at, acked }) => {
                for (index, errno) in at {
                    self.acknowledge(messages[index as usize].header, errno.raw());
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
            return self.acknowledge(begin, Errno::ERESTART.raw());
        }
        for message in &messages[1..messages.len() - 1] {
            self.operate(*message);
            if message.header.flags & NLM_F_ACK != 0 {
                self.acknowledge(message.header, 0);
            }
        }
        self.generation += 1;
    }

    /// Gives a handle to rules that were put here by hand.
    fn number_rules(&mut self) {
        let rules = self.ruleset.iter_mut().flat_map(|ruleset| &mut ruleset.rules);
        for rule in rules.filter(|rule| rule.handle.is_none()) {
            self.handle += 1;
            rule.handle = Some(self.handle);
        }
    }

    fn operate(&mut self, message: Message<'_>) {
        match message.header.nf_tables_message() {
            Some(NFT_MSG_NEWTABLE) => {
                let table = Table::decode(message.body).unwrap();
                self.ruleset.get_or_insert_with(|| TableState::empty(table));
            }
            Some(NFT_MSG_DELTABLE) => {
                self.ruleset = None;
                self.objects.clear();
            }
            Some(NFT_MSG_NEWCHAIN) => {
                self.ruleset.as_mut().unwrap().chains.push(Chain::decode(message.body).unwrap());
            }
            Some(NFT_MSG_NEWSET) => {
                let set = SetSpec::decode(message.body).unwrap();
                assert!(set.id.is_some(), "the kernel asks for a number");
                let set = SetSpec { id: None, ..set };
                let sets = &mut self.ruleset.as_mut().unwrap().sets;
                sets.push(Set { spec: set, elements: Vec::new().into() });
            }
            Some(NFT_MSG_NEWSETELEM) => {
                let Elements { set, elements, .. } = Elements::decode(message.body).unwrap();
                let mut sets = self.ruleset.as_mut().unwrap().sets.iter_mut();
                let filled = sets.find(|filled| filled.spec.name == set).unwrap();
                filled.elements.edit(|held| held.extend(elements.to_vec()));
            }
            Some(NFT_MSG_NEWRULE) => {
                self.handle += 1;
                let rule = Rule::decode(message.body).unwrap();
                let rules = &mut self.ruleset.as_mut().unwrap().rules;
                let before = rule.position.map(|position| rule_at(rules, position));
                let rule = Rule { handle: Some(self.handle), position: None, ..rule };
                rules.insert(before.unwrap_or(rules.len()), rule);
            }
            Some(NFT_MSG_DELRULE) => {
                let handle = Rule::decode(message.body).unwrap().handle.unwrap();
                let ruleset = self.ruleset.as_mut().unwrap();
                let gone = ruleset.rules.remove(rule_at(&ruleset.rules, handle));
                // Anonymous sets go with their rule.
                let uses = |name: &str| {
                    let is_use = |expr: &Expr| matches!(expr, Expr::Lookup(l) if l.set == name);
                    gone.exprs.iter().any(is_use)
                };
                ruleset
                    .sets
                    .retain(|filled| !filled.spec.is_anonymous() || !uses(&filled.spec.name));
            }
            Some(NFT_MSG_DELCHAIN) => {
                let name = Chain::decode(message.body).unwrap().name;
                self.ruleset.as_mut().unwrap().chains.retain(|chain| chain.name != name);
            }
            Some(NFT_MSG_DELSET) => {
                let name = SetSpec::decode(message.body).unwrap().name;
                self.ruleset.as_mut().unwrap().sets.retain(|filled| filled.spec.name != name);
            }
            Some(NFT_MSG_DELSETELEM) => {
                let Elements { set, elements, .. } = Elements::decode(message.body).unwrap();
                let mut sets = self.ruleset.as_mut().unwrap().sets.iter_mut();
                let filled = sets.find(|filled| filled.spec.name == set).unwrap();
                let gone = elements.to_vec();
                let stays = |held: &Element| gone.iter().all(|gone| gone.key != held.key);
                filled.elements.edit(|elements| elements.retain(stays));
            }
            other => panic!("unexpected operation {other:?}"),
        }
    }
}

/// An object of another table with a name that is not UTF-8 and attributes that nobody can decode.
pub(crate) fn foreign_object() -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(&NfGenMsg::new(FAMILY).to_bytes());
    w.bytes(NFTA_TABLE_NAME, b"t\xff\0");
    (2..20).for_each(|byte| w.bytes(byte.into(), &[byte; 3]));
    w.finish().unwrap()
}

/// The index of the rule with this handle.
fn rule_at(rules: &[Rule], handle: u64) -> usize {
    rules.iter().position(|rule| rule.handle == Some(handle)).expect("ENOENT")
}

/// The set or chain that is asked for.
fn name(asked: &[u8], attribute: u16) -> String {
    let mut reader = Reader::new(asked);
    NfGenMsg::decode(&mut reader).unwrap();
    let mut attrs = reader.attrs().map(Result::unwrap);
    let name = attrs.find(|attr| attr.attribute_type == attribute).unwrap();
    name.string().unwrap().into()
}

/// Its elements as the kernel lists them: from the last one, in several messages.
pub(crate) fn messages_of(filled: &Set) -> Vec<Elements> {
    let elements: Vec<_> = filled.elements.to_vec().into_iter().rev().collect();
    elements.chunks(500).map(|part| Elements::new(&filled.spec, part.to_vec())).collect()
}

fn batch_generation(body: &[u8]) -> u32 {
    let mut reader = Reader::new(body);
    NfGenMsg::decode(&mut reader).unwrap();
    let attr = reader.attrs().next().unwrap().unwrap();
    assert_eq!(attr.attribute_type, NFNL_BATCH_GENID);
    attr.u32_be().unwrap()
}

impl Transport for &mut Kernel {
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        self.number_rules();
        let messages: Vec<_> = Messages::new(datagram).map(Result::unwrap).collect();
        if messages[0].header.message_type == NFNL_MSG_BATCH_BEGIN {
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

/// A policy of one range, compiled.
pub(crate) fn ruleset(range: &str) -> TableState {
    let ports: PortSet = range.parse().unwrap();
    let policy = Policy::to(ports).address(Address::Masquerade).build().unwrap();
    let uplinks = ["eth0".parse().unwrap()];
    compile(&[policy.resolve(&HostFacts::with_uplinks(uplinks)).unwrap()]).unwrap()
}
