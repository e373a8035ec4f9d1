//! The commands that help with a failure of the library, whose own errors name none.

use std::fmt;

use ephport_nft::client::Cause;
use ephport_nft::conntrack::ConntrackError;
use ephport_nft::{Errno, Error, NetlinkError};

/// An error of the library with its advice.
pub(crate) struct Advised<'a>(pub(crate) &'a Error);

impl fmt::Display for Advised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        advice(self.0).map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

fn advice(error: &Error) -> Option<String> {
    Some(match error {
        Error::Netlink(error) => return netlink(error).map(Into::into),
        Error::NotPermitted { .. } => {
            "run as root, or in a user and network namespace of your own".into()
        }
        Error::NoNfTables => "load it with `modprobe nf_tables`".into(),
        Error::NoModule { module, .. } => format!("load it with `modprobe {}`", module.name),
        Error::Rejected(rejection) => match rejection.cause? {
            Cause::Exists | Cause::InUse => "look with `nft list ruleset`".into(),
            Cause::NoMemory => "free some, or raise the limit of the group".into(),
            _ => return None,
        },
        Error::OpenConnections(_) => {
            "to drop those whose port is not permitted, apply with --open-connections drop".into()
        }
        Error::Dropped | Error::Busy { .. } => "try again".into(),
        Error::Unconfirmed => "run `ephport-nft status` to see its state".into(),
        Error::Foreign { table } => {
            format!("look at it with `nft list table inet {table}`, and rename or delete it")
        }
        Error::Owned { port_id, .. } => owner(*port_id),
        _ => return None,
    })
}

/// The advice when another process owns the table. The port id of the first socket of a process is the
/// number of the process.
fn owner(port_id: Option<u32>) -> String {
    let name = port_id.and_then(|id| {
        let name = std::fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
        Some(format!("process {id}, {}", name.trim()))
    });
    match name {
        Some(name) => format!("its owner is {name}: change its policy, or end it first"),
        None => "change the policy of its owner, or end that process first".into(),
    }
}

/// The advice for a failure of the socket.
pub(crate) fn netlink(error: &NetlinkError) -> Option<&'static str> {
    let NetlinkError::Open { errno } = error else { return None };
    Some(match *errno {
        Errno::EPROTONOSUPPORT => "load it with `modprobe nfnetlink`",
        Errno::EMFILE => "close some, or raise the limit with `ulimit -n`",
        Errno::ENFILE => "close some, or raise the sysctl fs.file-max",
        Errno::EPERM | Errno::EACCES | Errno::EAFNOSUPPORT => {
            "allow AF_NETLINK sockets there (systemd: RestrictAddressFamilies=)"
        }
        _ => return None,
    })
}

/// The advice after a failure to read the connection tracking table; empty if there is none.
pub(crate) fn conntrack(error: &ConntrackError) -> &'static str {
    match error {
        ConntrackError::NoCtnetlink => "; load it with `modprobe nf_conntrack_netlink`",
        ConntrackError::NotPermitted => {
            "; run as root, or in a user and network namespace of your own"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use ephport_nft::conntrack::ConntrackError;

    use super::*;

    #[test]
    fn each_error_gets_the_advice_for_its_cause() {
        let open =
            [Errno::EPROTONOSUPPORT, Errno::EMFILE, Errno::ENFILE, Errno::EPERM, Errno::ENOMEM];
        let netlink = open.map(|errno| NetlinkError::Open { errno }.into());
        let table = || "ephport".to_string();
        let others = [
            Error::NotPermitted { task: "changing" },
            Error::NoNfTables,
            Error::Dropped,
            Error::Busy { tries: 128 },
            Error::Unconfirmed,
            Error::Foreign { table: table() },
            Error::Owned { table: table(), port_id: Some(u32::MAX) },
            Error::Owned { table: table(), port_id: None },
            Error::OpenConnections(ConntrackError::NoCtnetlink.into()),
            Error::OtherTable { table: "nodes".into(), expected: table() },
        ];
        let errors: Vec<Error> = netlink.into_iter().chain(others).collect();
        let messages: Vec<_> = errors.iter().map(|error| Advised(error).to_string()).collect();
        expect![[r#"
            cannot open a netlink socket (EPROTONOSUPPORT: Protocol not supported): the kernel has no nfnetlink (CONFIG_NETFILTER_NETLINK); load it with `modprobe nfnetlink`
            cannot open a netlink socket (EMFILE: Too many open files): this process has too many open files; close some, or raise the limit with `ulimit -n`
            cannot open a netlink socket (ENFILE: File table overflow): the system has too many open files; close some, or raise the sysctl fs.file-max
            cannot open a netlink socket (EPERM: Operation not permitted): a sandbox forbids it to this process; allow AF_NETLINK sockets there (systemd: RestrictAddressFamilies=)
            cannot open a netlink socket (ENOMEM: Out of memory)
            permission denied: changing the ruleset requires CAP_NET_ADMIN; run as root, or in a user and network namespace of your own
            the kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET); load it with `modprobe nf_tables`
            the kernel did not commit the transaction and gave no reason; try again
            another process changed the ruleset during each of 128 attempts; try again
            the kernel did not confirm the transaction: it may be committed or not; run `ephport-nft status` to see its state
            table inet ephport exists and has another owner; look at it with `nft list table inet ephport`, and rename or delete it
            table inet ephport is owned by netlink port id 4294967295: only its owner may change it; change the policy of its owner, or end that process first
            table inet ephport is owned by another process: only its owner may change it; change the policy of its owner, or end that process first
            cannot find the connections that are open: the kernel has no ctnetlink (CONFIG_NF_CT_NETLINK); to drop those whose port is not permitted, apply with --open-connections drop
            cannot apply a state of table inet nodes: this client changes table inet ephport"#]].assert_eq(&messages.join("\n"));
    }
}
