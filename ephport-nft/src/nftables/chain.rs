//! Chains (`NFTA_CHAIN_*`): lists of rules, entered from a hook or from another chain.

use super::schema::attributes;
use crate::uapi::NFT_CHAIN_BASE;

attributes! {
    /// A chain.
    message Chain("chain", family) {
        /// The table's name.
        table: String = NFTA_CHAIN_TABLE,
        /// Its name, unique in its table.
        name: String = NFTA_CHAIN_NAME,
        /// The kernel's number for it.
        handle: Option<u64> = NFTA_CHAIN_HANDLE,
        /// The hook of a base chain.
        hook: Option<Hook> = NFTA_CHAIN_HOOK,
        /// The verdict at the end of a base chain, an `NF_*`.
        policy: Option<u32> = NFTA_CHAIN_POLICY,
        /// The type of a base chain: `filter`, `nat` or `route`.
        chain_type: Option<String> = NFTA_CHAIN_TYPE,
        /// `NFT_CHAIN_*`.
        flags: Option<u32> = NFTA_CHAIN_FLAGS,
    } other, padding NFTA_CHAIN_PAD, bookkeeping NFTA_CHAIN_USE
}

attributes! {
    /// The place in a packet's path where a base chain is entered. The devices of an ingress or egress
    /// chain are in `other`.
    Hook("hook") {
        /// An `NF_INET_*`.
        number: u32 = NFTA_HOOK_HOOKNUM,
        /// Chains of one hook run in ascending order of priority.
        priority: i32 = NFTA_HOOK_PRIORITY,
    } other
}

impl Hook {
    /// A hook of the IP families.
    #[must_use]
    pub fn new(number: u32, priority: i32) -> Self {
        Self { number, priority, other: Vec::new() }
    }
}

impl Chain {
    /// A regular chain, which other chains jump to.
    #[must_use]
    pub fn regular(family: u8, table: &str, name: &str) -> Self {
        Self {
            family,
            table: table.into(),
            name: name.into(),
            handle: None,
            hook: None,
            policy: None,
            chain_type: None,
            flags: None,
            other: Vec::new(),
        }
    }

    /// The same chain without the kernel's number, as it is added.
    #[must_use]
    pub(crate) fn unnumbered(&self) -> Self {
        Self { handle: None, ..self.clone() }
    }

    /// The chain without the kernel's own numbers.
    #[must_use]
    pub fn normalized(&self) -> Self {
        // The kernel sets NFT_CHAIN_BASE on every base chain.
        let flags = self.flags.map(|flags| flags & !NFT_CHAIN_BASE).filter(|flags| *flags != 0);
        Self { handle: None, flags, ..self.clone() }
    }
}
