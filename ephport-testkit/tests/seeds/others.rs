//! Other writers, which act between any two messages of the client.

use ephport_nft::client::Transport;
use ephport_nft::netlink::NfGenMsg;
use ephport_nft::nftables::expr::{Counter, Immediate, Verdict};
use ephport_nft::nftables::{Chain, Rule, SetSpec, Table};
use ephport_nft::table::layout::{FAMILY, TABLE};
use ephport_nft::uapi::{
    NFPROTO_UNSPEC, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWTABLE, NFT_OBJECT_COUNTER,
    NFTA_OBJ_DATA, NFTA_OBJ_NAME, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE, NLM_F_APPEND, NLM_F_CREATE,
};
use ephport_nft::{Client, Plan};
use ephport_testkit::{Batch, Kernel, Random};

/// The table of another program.
const OTHER: &str = "other";

pub(crate) struct Others {
    random: Random,
    per_mille: u32,
    plans: &'static [Plan],
}

impl Others {
    pub(crate) fn new(seed: u64, per_mille: u32, plans: &'static [Plan]) -> Self {
        Self { random: Random::new(seed), per_mille, plans }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.per_mille == 0
    }

    /// A table with the client's name that another program made.
    pub(crate) fn foreign_table(kernel: &Kernel) {
        commit(kernel, |batch| {
            let table = Table::new(FAMILY, TABLE);
            batch.push(NFT_MSG_NEWTABLE, NLM_F_CREATE, |w| table.encode(w));
        });
    }

    pub(crate) fn act(&mut self, kernel: &Kernel) {
        if !self.random.chance(self.per_mille) {
            return;
        }
        match self.random.below(16) {
            0..5 => commit(kernel, other_table),
            5 => commit(kernel, |batch| {
                let all = Table::new(NFPROTO_UNSPEC, TABLE);
                batch.push(NFT_MSG_DELTABLE, 0, |w| w.raw(&NfGenMsg::new(all.family).to_bytes()));
            }),
            6 => commit(kernel, delete_ours),
            7 => Self::foreign_table(kernel),
            8 => {
                let plan = self.random.pick(self.plans).expect("plans");
                let _ = Client::with_transport(kernel.socket()).apply(plan);
            }
            9 => {
                let calls = u32::try_from(self.random.below(6)).expect("small");
                let delete = self.random.chance(300);
                let datagram = datagram(if delete { delete_ours } else { other_table });
                kernel.commit_slowly(&datagram, calls);
            }
            10 => commit(kernel, |batch| {
                other_table(batch);
                // Its failure aborts the rest.
                let absent = Table::new(FAMILY, "absent");
                batch.push(NFT_MSG_DELTABLE, 0, |w| absent.encode(w));
            }),
            _ => self.edit_ours(kernel),
        }
    }

    /// Changes the client's table as nft would.
    fn edit_ours(&mut self, kernel: &Kernel) {
        let Some(table) = kernel.table(TABLE) else { return };
        let chain = self.random.pick(&table.chains).map(|chain| chain.name.clone());
        let chain = chain.unwrap_or_default();
        match self.random.below(5) {
            0 => {
                let Some(rule) = self.random.pick(&table.rules) else { return };
                let name =
                    Rule { handle: rule.handle, ..Rule::new(FAMILY, TABLE, &rule.chain, vec![]) };
                commit(kernel, |batch| batch.push(NFT_MSG_DELRULE, 0, |w| name.encode(w)));
            }
            1 => {
                let exprs =
                    vec![Counter::default().into(), Immediate::verdict(Verdict::Accept).into()];
                let rule = Rule::new(FAMILY, TABLE, &chain, exprs);
                let append = if self.random.chance(500) { NLM_F_APPEND } else { 0 };
                commit(kernel, |batch| {
                    batch.push(NFT_MSG_NEWRULE, NLM_F_CREATE | append, |w| rule.encode(w));
                });
            }
            2 => commit(kernel, |batch| {
                let chain = Chain::regular(FAMILY, TABLE, "added");
                batch.push(NFT_MSG_NEWCHAIN, NLM_F_CREATE, |w| chain.encode(w));
            }),
            3 => commit(kernel, |batch| {
                let spec = SetSpec {
                    id: Some(1),
                    key_type: Some(13),
                    key_len: Some(2),
                    ..SetSpec::new(FAMILY, TABLE, "added")
                };
                batch.push(NFT_MSG_NEWSET, NLM_F_CREATE, |w| spec.encode(w));
                batch.push(NFT_MSG_NEWOBJ, NLM_F_CREATE, |w| {
                    w.raw(&NfGenMsg::new(FAMILY).to_bytes());
                    w.string(NFTA_OBJ_TABLE, TABLE);
                    w.string(NFTA_OBJ_NAME, "added");
                    w.u32_be(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
                    w.bytes(NFTA_OBJ_DATA, &[]);
                });
            }),
            _ => commit(kernel, |batch| {
                let chain = Chain::regular(FAMILY, TABLE, &chain);
                batch.push(NFT_MSG_DELCHAIN, 0, |w| chain.encode(w));
            }),
        }
    }
}

fn other_table(batch: &mut Batch) {
    let table = Table::new(FAMILY, OTHER);
    batch.push(NFT_MSG_NEWTABLE, NLM_F_CREATE, |w| table.encode(w));
}

fn delete_ours(batch: &mut Batch) {
    let table = Table::new(FAMILY, TABLE);
    batch.push(NFT_MSG_DELTABLE, 0, |w| table.encode(w));
}

fn datagram(write: impl FnOnce(&mut Batch)) -> Vec<u8> {
    let mut batch = Batch::new(1, None);
    write(&mut batch);
    batch.finish().expect("small")
}

/// Sends a transaction; the kernel may refuse it.
fn commit(kernel: &Kernel, write: impl FnOnce(&mut Batch)) {
    kernel.socket().send(&datagram(write)).expect("no fault");
}
