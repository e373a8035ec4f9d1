//! The parts of the program `ephport-nft`.
//!
//! [`lab`] makes whole networks inside this process, out of private namespaces; [`demo`] shows in
//! one of them what a policy does to real packets. Neither needs privileges, and neither touches
//! the host.
#![forbid(unsafe_code)]

pub mod demo;
pub mod lab;
