//! `masq`: source NAT to the address of the interface that the packet leaves by
//! (net/netfilter/nft_masq.c).

use std::fmt;

use super::Register;
use crate::nftables::schema::attributes;
use crate::uapi::NF_NAT_RANGE_PROTO_SPECIFIED;

attributes! {
    /// Masquerades, to the ports in two registers when it has them.
    #[derive(Default)]
    Masq("masq") {
        /// `NF_NAT_RANGE_*`. Without `NF_NAT_RANGE_PROTO_SPECIFIED` the kernel takes the registers
        /// and ignores them, and nft lists the ports as if they held.
        flags: Option<u32> = NFTA_MASQ_FLAGS,
        /// Holds the lowest port.
        proto_min: Option<Register> = NFTA_MASQ_REG_PROTO_MIN,
        /// Holds the highest port; the lowest alone if absent.
        proto_max: Option<Register> = NFTA_MASQ_REG_PROTO_MAX,
    }
}

impl Masq {
    /// Whether it names ports that the kernel will not heed.
    #[must_use]
    pub fn ignores_its_ports(&self) -> bool {
        let specified = self.flags.unwrap_or(0) & NF_NAT_RANGE_PROTO_SPECIFIED != 0;
        self.proto_min.is_some() && !specified
    }

    /// For a single port the kernel lists the lower register as the upper one too.
    pub(super) fn normalized(&self) -> Self {
        Self {
            proto_max: self.proto_max.filter(|max| Some(*max) != self.proto_min),
            ..self.clone()
        }
    }
}

impl fmt::Display for Masq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("masq")?;
        if let Some(register) = self.proto_min {
            write!(f, " proto_min {register}")?;
        }
        if let Some(register) = self.proto_max {
            write!(f, " proto_max {register}")?;
        }
        if let Some(flags) = self.flags {
            write!(f, " flags {flags:#x}")?;
        }
        Ok(())
    }
}
