//! `counter`: how many packets came here (net/netfilter/nft_counter.c).

use std::fmt;

use crate::nftables::schema::attributes;

attributes! {
    /// Counts the packets and bytes that reach it. In a nat chain that is one packet a connection.
    #[derive(Default)]
    Counter("counter") {
        /// Bytes so far.
        bytes: u64 = NFTA_COUNTER_BYTES,
        /// Packets so far.
        packets: u64 = NFTA_COUNTER_PACKETS,
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "counter pkts {} bytes {}", self.packets, self.bytes)
    }
}
