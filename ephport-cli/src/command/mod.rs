//! The commands, one file each.

pub(crate) mod apply;
pub(crate) mod completions;
pub(crate) mod confirm;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod guard;
pub(crate) mod import;
pub(crate) mod man;
pub(crate) mod remove;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod usage;
pub(crate) mod whose;

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use ephport_core::import::map_e::MapEInputError;
use ephport_core::{
    Document, DocumentError, HostFacts, NaclError, PolicyError, PolicyFileError, ResolveError,
};
use ephport_nft::conntrack::ConntrackError;
use ephport_nft::interpret::InterpretError;
use ephport_nft::netlink::NetlinkError;
use ephport_nft::{Client, Plan, PlanError, host};

use crate::advice::{self, Advised};
use crate::args::SourceArgs;
use crate::demo::DemoError;
use crate::document::Level;
use crate::files::FilesIn;
use crate::guard::presence::{self, Running};
use crate::output::Output;
use crate::trial::TrialError;

/// The policy file where no other is named.
const DEFAULT_FILE: &str = "/etc/ephport/policy.toml";

/// The longest input, in bytes: 256 MiB.
const MAX_INPUT: u64 = 256 << 20;

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(
        "cannot read {}: {source}; write a policy there, or name the ports with --to-ports",
        path.display()
    )]
    NoFile { path: PathBuf, source: io::Error },
    #[error("{}:{}:{}: {}", path.display(), source.line, source.column, source.problem)]
    File { path: PathBuf, source: PolicyFileError },
    #[error(transparent)]
    Plan(PlanError),
    #[error("{0}")]
    Sysctl(#[from] show::SysctlError),
    #[error("cannot read the interfaces and routes: {}", Advised(&.0.clone().into()))]
    Host(NetlinkError),
    #[error("{}", Advised(.0))]
    Kernel(ephport_nft::Error),
    #[error("{}{}", .0, advice::conntrack(.0))]
    Conntrack(#[from] ConntrackError),
    #[error("cannot read standard input: {0}")]
    Input(#[source] io::Error),
    #[error(transparent)]
    Nacl(#[from] NaclError),
    #[error(transparent)]
    MapE(#[from] MapEInputError),
    #[error("no rule was found that names the ports to masquerade to")]
    NoTranslation,
    #[error(
        "no port from 1024 up is left that all replies get through to: \
         the network ACLs must allow some inbound"
    )]
    NoReplyPorts,
    #[error(transparent)]
    Trial(#[from] TrialError),
    #[error("cannot use the journal {}: {source}", path.display())]
    Journal { path: PathBuf, source: io::Error },
    #[error("cannot start the guard: {0}")]
    Guard(#[source] io::Error),
    #[error(
        "{guard} keeps the policy of this network namespace; change its policy file, or end it first"
    )]
    Guarded { guard: Running },
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("cannot write to {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    /// A fault of ephport: imported policies have distinct names, tables of any size can be
    /// encoded, and the interpreter supports all that the compiler emits.
    #[error("{0}; this is a fault of ephport-nft, please report it with your policies")]
    Fault(Box<dyn Error + Send + Sync>),
}

impl From<ephport_nft::Error> for Failure {
    fn from(error: ephport_nft::Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Compile(error) => Self::Fault(error.into()),
            error => Self::Plan(error),
        }
    }
}

impl From<InterpretError> for Failure {
    fn from(error: InterpretError) -> Self {
        Self::Fault(error.into())
    }
}

impl Failure {
    /// Whether a policy needs an uplink, and there is none now.
    pub(crate) fn is_no_uplink(&self) -> bool {
        matches!(self, Self::Plan(PlanError::Resolve { source: ResolveError::NoUplink, .. }))
    }

    /// The stable name of this kind of failure, for programs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Policy(_) | Self::Plan(_) | Self::Sysctl(_) => "policy",
            Self::NoFile { .. } | Self::File { .. } => "file",
            Self::Host(_) => "host",
            Self::Kernel(_) | Self::Conntrack(_) => "kernel",
            Self::Input(_)
            | Self::Nacl(_)
            | Self::MapE(_)
            | Self::NoTranslation
            | Self::NoReplyPorts => "input",
            Self::Journal { .. } => "journal",
            Self::Trial(_) => "confirm",
            Self::Guard(_) | Self::Guarded { .. } => "guard",
            Self::Demo(_) => "demo",
            Self::Print(_) | Self::Write { .. } => "output",
            Self::Fault(_) => "fault",
        }
    }
}

/// An error if a guard keeps the policy of this network namespace: it would undo a change.
fn refuse_if_guarded() -> Result<(), Failure> {
    presence::running().map_or(Ok(()), |guard| Err(Failure::Guarded { guard }))
}

/// Report that a change that was made is not in the journal.
fn warn_of_journal(result: Result<(), Failure>, output: &mut Output<'_>) {
    if let Err(failure) = result {
        output.message(Level::Warning, failure.kind(), None, &failure.to_string());
    }
}

/// The policies of the flags or of the file.
fn document(source: SourceArgs) -> Result<Document, Failure> {
    if let Some(policy) = source.policy.policy() {
        return Ok(policy.into());
    }
    read_document(source.file.unwrap_or_else(|| Path::new(DEFAULT_FILE).into()))
}

fn read_document(path: PathBuf) -> Result<Document, Failure> {
    let file = if path.as_os_str() == "-" {
        // The caller of the command may have locked it.
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(&path)
    };
    match file.and_then(|mut file| read_text(&mut file)) {
        Ok(text) => {
            let files = FilesIn::directory_of(&path);
            Document::read(&text, &files).map_err(|source| Failure::File { path, source })
        }
        Err(source) => Err(Failure::NoFile { path, source }),
    }
}

/// The plan of a document on this host, after its warnings.
fn plan(document: &Document, output: &mut Output<'_>) -> Result<Plan, Failure> {
    plan_on(document, &facts_for(document, output)?, output)
}

/// The facts of this host on which the policies depend.
fn facts_for(document: &Document, output: &mut Output<'_>) -> Result<HostFacts, Failure> {
    let mut facts = host::facts().map_err(Failure::Host)?;
    if document.remaps()
        && let Err(error) = read_forwards(&mut facts)
    {
        let message = format!(
            "the ports that other tables forward are not read, and not excluded from remapped sets: {error}"
        );
        output.message(Level::Warning, "unseen-forwards", None, &message);
    }
    Ok(facts)
}

/// Add the ports that NAT rules of other tables forward.
fn read_forwards(facts: &mut HostFacts) -> Result<(), Failure> {
    Ok(Client::open()?.read_forwards(facts)?)
}

/// The plan of a document on a host with these facts, after its warnings.
fn plan_on(
    document: &Document,
    facts: &HostFacts,
    output: &mut Output<'_>,
) -> Result<Plan, Failure> {
    let plan = Plan::new(document.policies(), &completed(facts.clone(), document))?;
    plan.warnings.iter().for_each(|warning| output.warn(warning));
    Ok(plan)
}

/// The facts with those of the kernel that the policies depend on; without the privilege to ask, as they are.
fn completed(facts: HostFacts, document: &Document) -> HostFacts {
    match Client::open() {
        Ok(mut client) => client.complete(facts, document.policies()),
        Err(_) => facts,
    }
}

/// Standard input as text.
fn read_input(input: &mut dyn Read) -> Result<String, Failure> {
    read_text(input).map_err(Failure::Input)
}

/// All of a stream, up to the limit.
fn read_bytes(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "longer than 256 MiB"));
    }
    Ok(bytes)
}

/// All of a stream as text, up to the limit.
pub(crate) fn read_text(input: &mut dyn Read) -> io::Result<String> {
    String::from_utf8(read_bytes(input)?).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        io::Error::new(ErrorKind::InvalidData, format!("byte {place} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use ephport_nft::compile::CompileError;

    use super::*;
    use crate::lab::LabError;

    /// Each with the message of its source, which has a test where it is defined.
    #[test]
    fn messages_of_sources_are_kept() {
        let policy = || PolicyError::Loopback { key: "out-interfaces" };
        let document: PolicyFileError = "".parse::<Document>().unwrap_err();
        let (line, problem) = (document.line, document.problem.clone());
        let demo = || DemoError::Lab(LabError::ManyThreads { threads: 3 });
        let unplanned = || {
            let document: Document = "[[policy]]\nname = \"a\"\nto-ports = \"1\"".parse().unwrap();
            Plan::new(document.policies(), &HostFacts::default()).unwrap_err()
        };
        let kernel = || ephport_nft::Error::Netlink(NetlinkError::Interrupted);
        let cases = [
            (Failure::Policy(policy()), policy().to_string()),
            (
                Failure::Conntrack(ConntrackError::NotPermitted),
                format!(
                    "{}; run as root, or in a user and network namespace of your own",
                    ConntrackError::NotPermitted
                ),
            ),
            (
                Failure::File { path: "a.toml".into(), source: document },
                format!("a.toml:{line}:1: {problem}"),
            ),
            (Failure::Plan(unplanned()), unplanned().to_string()),
            (Failure::Sysctl(show::SysctlError::NotLocal), show::SysctlError::NotLocal.to_string()),
            (
                Failure::Print(ErrorKind::StorageFull.into()),
                "cannot print: no storage space".into(),
            ),
            (Failure::Kernel(kernel()), kernel().to_string()),
            (Failure::Nacl(NaclError::NoAcl), NaclError::NoAcl.to_string()),
            (Failure::MapE(MapEInputError::NoInterface), MapEInputError::NoInterface.to_string()),
            (Failure::Demo(demo()), demo().to_string()),
            (
                Failure::Write { path: "/a".into(), source: ErrorKind::StorageFull.into() },
                "cannot write to /a: no storage space".into(),
            ),
            (
                Failure::NoTranslation,
                "no rule was found that names the ports to masquerade to".into(),
            ),
            (Failure::Trial(TrialError::Killed), TrialError::Killed.to_string()),
            (
                Failure::Journal { path: "/a".into(), source: ErrorKind::StorageFull.into() },
                "cannot use the journal /a: no storage space".into(),
            ),
            (
                Failure::Guard(ErrorKind::StorageFull.into()),
                "cannot start the guard: no storage space".into(),
            ),
            (
                Failure::Guarded { guard: Running { process: 7 } },
                "`ephport-nft guard`, process 7, keeps the policy of this network namespace; change \
                 its policy file, or end it first"
                    .into(),
            ),
            (
                Failure::Guarded { guard: Running { process: 0 } },
                "`ephport-nft guard` in another pid namespace keeps the policy of this network \
                 namespace; change its policy file, or end it first"
                    .into(),
            ),
        ];
        for (failure, message) in cases {
            assert_eq!(failure.to_string(), message);
        }
    }

    #[test]
    fn faults_of_ephport_ask_for_a_report() {
        let same_name = CompileError::SameName { name: "a".parse().unwrap() };
        let faults = [
            Failure::from(DocumentError::Empty),
            Failure::from(PlanError::Compile(same_name)),
            Failure::from(InterpretError::Undecided),
        ];
        for fault in faults {
            assert!(matches!(fault, Failure::Fault(_)));
            let message = fault.to_string();
            let request = "; this is a fault of ephport-nft, please report it with your policies";
            assert!(message.len() > request.len() && message.ends_with(request), "{message}");
        }
    }

    #[test]
    fn endless_input_ends_with_an_error() {
        let error = read_input(&mut io::repeat(0)).unwrap_err().to_string();
        assert_eq!(error, "cannot read standard input: longer than 256 MiB");
    }
}
