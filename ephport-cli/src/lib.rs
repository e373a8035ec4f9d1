//! The parts of the program `ephport-nft`.
//!
//! [`lab`] makes whole networks inside this process, out of private namespaces. It needs no
//! privileges and never touches the host.
#![forbid(unsafe_code)]

pub mod lab;
