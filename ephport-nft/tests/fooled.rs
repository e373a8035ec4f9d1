//! The situations that fool a netlink client (`docs/client.md`) and that no current kernel shows by itself,
//! with a scripted kernel. `tests/tests/fooled.rs` has those of a real kernel.

mod scripted;

use ephport_nft::Errno;
use ephport_nft::client::Module;
use ephport_nft::netlink::{Header, Messages};
use ephport_nft::netlink::{NetlinkError, Transport};
use ephport_nft::uapi::{NFNL_MSG_BATCH_BEGIN, NFT_MSG_DELSETELEM, NLM_F_ACK};
use ephport_nft::{Applied, Client, Error, TableState};
use scripted::{BatchFault, Kernel, ruleset};

/// A kernel whose answers to a batch of these messages are tampered with.
struct Tampered<F> {
    kernel: Kernel,
    tamper: F,
}

impl<F: FnMut(&mut Kernel, &[Header])> Transport for &mut Tampered<F> {
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let sent = (&mut self.kernel).send(datagram);
        let headers: Vec<_> =
            Messages::new(datagram).map(|message| message.unwrap().header).collect();
        let is_empty = headers.len() == 2;
        if headers[0].message_type == NFNL_MSG_BATCH_BEGIN && !is_empty {
            (self.tamper)(&mut self.kernel, &headers);
        }
        sent
    }

    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        (&mut self.kernel).poll()
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        (&mut self.kernel).receive()
    }
}

/// The result of an apply with tampered answers, and the kernel's table afterwards.
fn applied(
    batch_faults: Vec<BatchFault>,
    tamper: impl FnMut(&mut Kernel, &[Header]),
) -> (Result<Applied, Error>, Option<TableState>) {
    let kernel = Kernel { batch_faults: batch_faults.into(), ..Kernel::default() };
    let mut tampered = Tampered { kernel, tamper };
    let result = Client::with_transport(&mut tampered).apply(&ruleset("49152-61000"));
    (result, tampered.kernel.ruleset)
}

#[test]
fn error_after_a_spurious_ack_is_an_error() {
    // The last message, the only one that asks for an ack, and the chain.
    for at in [4, 8] {
        let fails = BatchFault::Fails { at: vec![(at, Errno::ENOENT)], acked: false };
        let (result, held) = applied(vec![fails], |kernel, headers| {
            kernel.acknowledge(headers[at as usize], 0);
            let ack = kernel.answers.pop_back().unwrap();
            kernel.answers.push_front(ack);
        });
        match result {
            Err(Error::NoModule { module: Module { name: "nft_chain_nat", .. }, .. }) => {
                assert_eq!(at, 4);
            }
            Err(Error::Rejected(refusal)) => assert_eq!((at, refusal.errno), (8, Errno::ENOENT)),
            other => panic!("{other:?}"),
        }
        assert_eq!(held, None);
    }
}

/// A kernel that has raised the generation for a ruleset which it does not show yet. Like any kernel it
/// accepts no batch before that one is done.
struct Late {
    kernel: Kernel,
    next: Option<TableState>,
}

impl Transport for &mut Late {
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let first = Messages::new(datagram).next().unwrap().unwrap().header;
        if first.message_type == NFNL_MSG_BATCH_BEGIN && self.next.is_some() {
            self.kernel.ruleset = self.next.take();
        }
        (&mut self.kernel).send(datagram)
    }

    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        (&mut self.kernel).poll()
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        (&mut self.kernel).receive()
    }
}

#[test]
fn commit_in_progress_is_awaited() {
    let (old, new) = (ruleset("1024-2047"), ruleset("49152-61000"));
    let kernel = Kernel { ruleset: Some(old), ..Kernel::default() };
    let mut late = Late { kernel, next: Some(new.clone()) };
    assert_eq!(Client::with_transport(&mut late).apply(&new), Ok(Applied::Unchanged));
    assert_eq!(late.kernel.batches, 0);
}

#[test]
fn acks_of_batch_begin_and_end_are_ignored() {
    let mut asking = Vec::new();
    let (result, held) = applied(Vec::new(), |kernel, headers| {
        asking.extend(headers.iter().map(|header| header.flags & NLM_F_ACK != 0));
        kernel.acknowledge(headers[0], 0);
        kernel.acknowledge(*headers.last().unwrap(), 0);
    });
    assert_eq!((result, held.is_some()), (Ok(Applied::Installed), true));
    let last = asking.len() - 2;
    assert!(asking.iter().enumerate().all(|(i, asks)| *asks == (i == last)), "{asking:?}");

    let (result, held) = applied(vec![BatchFault::Silence], |kernel, headers| {
        kernel.acknowledge(headers[0], 0);
        kernel.acknowledge(*headers.last().unwrap(), 0);
    });
    assert_eq!((result, held), (Err(Error::Dropped), None));
}

#[test]
fn ack_without_a_new_generation_is_dropped() {
    let (result, held) = applied(vec![BatchFault::Silence], |kernel, headers| {
        kernel.acknowledge(headers[headers.len() - 2], 0);
    });
    assert_eq!((result, held), (Err(Error::Dropped), None));
}

/// The kernel before 6.3 answers EINVAL to it, and to whatever else is newer.
#[test]
fn destroytable_is_never_used() {
    let mut kinds = Vec::new();
    let mut tampered = Tampered {
        kernel: Kernel::default(),
        tamper: |_: &mut Kernel, headers: &[Header]| {
            kinds.extend(headers.iter().filter_map(|header| header.nf_tables_message()));
        },
    };
    let mut nft = Client::with_transport(&mut tampered);
    nft.apply(&ruleset("49152-61000")).unwrap();
    nft.apply(&ruleset("1024-2047,3000-3999")).unwrap();
    assert_eq!(nft.remove(), Ok(true));
    assert!(kinds.len() > 10 && kinds.iter().all(|kind| *kind <= NFT_MSG_DELSETELEM), "{kinds:?}");
}
