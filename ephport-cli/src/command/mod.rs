//! The commands, one file each.

pub(crate) mod apply;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod import;
pub(crate) mod remove;
pub(crate) mod show;
pub(crate) mod status;

use std::error::Error;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ephport_core::policy::file::ResolveDocumentError;
use ephport_core::{
    Document, DocumentError, HostFacts, Interfaces, NaclError, PolicyError, PolicyFileError,
    Protocol, ResolvedPolicy,
};
use ephport_nft::compile::CompileError;
use ephport_nft::interpret::InterpretError;
use ephport_nft::netlink::NetlinkError;
use ephport_nft::{TableState, compile, host};

use crate::args::SourceArgs;
use crate::demo::DemoError;

/// The policy file where no other is named.
const DEFAULT_FILE: &str = "/etc/ephport/policy.toml";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("cannot read {}: {source}; write a policy there, or name the ports with --to-ports", path.display())]
    NoFile { path: PathBuf, source: io::Error },
    #[error("{}:{}:{}: {}", path.display(), source.line, source.column, source.problem)]
    File { path: PathBuf, source: PolicyFileError },
    #[error(transparent)]
    Resolve(#[from] ResolveDocumentError),
    #[error("cannot read the interfaces and routes: {0}")]
    Host(#[source] NetlinkError),
    #[error(transparent)]
    Kernel(#[from] ephport_nft::Error),
    #[error("cannot read standard input: {0}")]
    Input(#[source] io::Error),
    #[error(transparent)]
    Nacl(#[from] NaclError),
    #[error(
        "no port from 1024 up is left that all replies get through to: \
         the network ACLs must allow some inbound"
    )]
    NoReplyPorts,
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    /// A fault of our own: what is imported has distinct names, what grows with a policy stands in
    /// sets, and the interpreter knows what the compiler writes.
    #[error("{0}; this is a fault of ephport-nft, please report it with your policies")]
    Fault(Box<dyn Error + Send + Sync>),
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<InterpretError> for Failure {
    fn from(error: InterpretError) -> Self {
        Self::Fault(error.into())
    }
}

impl Failure {
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The policies of the flags or of the file.
pub(crate) fn document(source: SourceArgs) -> Result<Document, Failure> {
    if let Some(policy) = source.policy.policy()? {
        return Ok(policy.into());
    }
    read_document(source.file.unwrap_or_else(|| Path::new(DEFAULT_FILE).into()))
}

fn read_document(path: PathBuf) -> Result<Document, Failure> {
    match std::fs::read_to_string(&path) {
        Ok(text) => text.parse().map_err(|source| Failure::File { path, source }),
        Err(source) => Err(Failure::NoFile { path, source }),
    }
}

/// What a document means on this host.
pub(crate) struct Request {
    pub(crate) policies: Vec<ResolvedPolicy>,
    pub(crate) ruleset: TableState,
}

impl Request {
    /// Binds the policies to this host, and warns of what will not work on it as it is now.
    pub(crate) fn new(document: &Document, err: &mut dyn Write) -> Result<Self, Failure> {
        let facts = host::facts().map_err(Failure::Host)?;
        let policies = document.resolve(&facts)?;
        for policy in &policies {
            warn_of_absent(policy, &facts, err)?;
        }
        let has_udplite = |policy: &ResolvedPolicy| policy.protocols.contains(Protocol::UdpLite);
        if policies.iter().any(has_udplite) && !host::knows_udplite() {
            writeln!(
                err,
                "warning: this kernel does not know UDP-Lite: it translates the address of such \
                 packets but not their port; enforce the policy to keep them from leaving"
            )?;
        }
        let ruleset = compile(&policies)?;
        Ok(Self { policies, ruleset })
    }
}

fn warn_of_absent(
    policy: &ResolvedPolicy,
    facts: &HostFacts,
    err: &mut dyn Write,
) -> io::Result<()> {
    let Interfaces::Matching(patterns) = &policy.out_interfaces else { return Ok(()) };
    for pattern in patterns.iter().filter(|pattern| !facts.knows(pattern)) {
        writeln!(
            err,
            "warning: no interface matches `{pattern}` now; \
             the policy will hold for it as soon as there is one"
        )?;
    }
    Ok(())
}

/// All of standard input.
fn read_input(input: &mut dyn Read) -> Result<String, Failure> {
    io::read_to_string(input).map_err(Failure::Input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::LabError;

    /// Each with the message of what it hands on, which has a test where it comes from.
    #[test]
    fn what_is_handed_on_keeps_its_words() {
        let policy = || PolicyError::NoTargetPorts;
        let document: PolicyFileError = "".parse::<Document>().unwrap_err();
        let (line, problem) = (document.line, document.problem.clone());
        let demo = || DemoError::Lab(LabError::ManyThreads { threads: 3 });
        let resolve = || {
            let document: Document = "[[policy]]\nname = \"a\"\nto-ports = \"1\"".parse().unwrap();
            document.resolve(&HostFacts::default()).unwrap_err()
        };
        let cases = [
            (Failure::Policy(policy()), policy().to_string()),
            (
                Failure::File { path: "a.toml".into(), source: document },
                format!("a.toml:{line}:1: {problem}"),
            ),
            (Failure::Resolve(resolve()), resolve().to_string()),
            (Failure::Kernel(ephport_nft::Error::Foreign), ephport_nft::Error::Foreign.to_string()),
            (Failure::Nacl(NaclError::NoAcl), NaclError::NoAcl.to_string()),
            (Failure::Demo(demo()), demo().to_string()),
        ];
        for (failure, message) in cases {
            assert_eq!(failure.to_string(), message);
        }
    }

    #[test]
    fn a_fault_of_our_own_is_to_be_reported() {
        let faults = [
            Failure::from(DocumentError::Empty),
            Failure::from(CompileError::SameName { name: "a".parse().unwrap() }),
            Failure::from(InterpretError::Undecided),
        ];
        for fault in faults {
            assert!(matches!(fault, Failure::Fault(_)));
            let message = fault.to_string();
            let request = "; this is a fault of ephport-nft, please report it with your policies";
            assert!(message.len() > request.len() && message.ends_with(request), "{message}");
        }
    }
}
