//! The client's sockets: of other namespaces, opened by others, polled, interrupted.

use std::fs::read_link;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use ephport_nft::client::{Event, Events, Interrupt, Options, State};
use ephport_nft::nftables::Commit;
use ephport_nft::{Applied, Client, Error, Namespace, NetlinkError, Plan, host};
use ephport_tests::tool::ok;
use ephport_tests::{Host, compiled, host_with_uplink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

const POLICY: &str = "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nenforce = true\n\
                      to-ports = \"49152-61000\"\n";

fn namespace(host: &Host) -> Namespace {
    host.run(Namespace::current).expect("its namespace")
}

fn netlink(protocol: SockProtocol) -> OwnedFd {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .expect("a socket")
}

#[test]
fn another_namespace_is_changed_and_no_thread_stays_there() {
    let (host, _peer) = host_with_uplink();
    let here = read_link("/proc/thread-self/ns/net").unwrap();
    let namespace = namespace(&host);
    // By its descriptor, and by a path.
    let path = format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd());
    let by_path = Namespace::open(path).unwrap();
    let mut facts = by_path.run(host::facts).unwrap().unwrap();
    assert!(!facts.uplinks.is_empty());
    ok(&host, "iptables-legacy -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to 192.0.2.1");
    Client::in_namespace(&namespace).unwrap().read_forwards(&mut facts).unwrap();
    assert_eq!(facts.unseen_forwards, ["table nat of iptables-legacy".into()]);
    let plan = Plan::new(
        &[ephport_core::Policy::to("49152-61000".parse::<ephport_core::PortSet>().unwrap())
            .enforce()
            .build()
            .unwrap()],
        &facts,
    )
    .unwrap();
    let mut client = Client::in_namespace(&namespace).unwrap();
    assert_eq!(client.apply(&plan), Ok(Applied::Installed));
    assert_eq!(Client::in_namespace(&by_path).unwrap().status(&plan).unwrap().state, State::Intact);
    assert_eq!(ok(&host, "nft list tables").trim(), "table inet ephport");
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end meanwhile.
    let left = tasks.filter_map(|task| read_link(task.ok()?.path().join("ns/net")).ok());
    let inside = host.run(|| read_link("/proc/thread-self/ns/net").unwrap());
    assert_eq!(left.filter(|namespace| *namespace == inside).count(), 0);
    assert_eq!(read_link("/proc/thread-self/ns/net").unwrap(), here);
}

#[test]
fn what_is_no_namespace_is_named() {
    let error = Client::in_namespace(&Namespace::open("/dev/null").unwrap()).unwrap_err();
    assert!(matches!(error, Error::Namespace(_)), "{error}");
    assert!(error.to_string().contains("expected a file such as /run/netns/NAME"), "{error}");
}

#[test]
fn a_socket_that_is_open_serves_client_and_events() {
    let host = Host::new("host").unwrap();
    let open = || host.run(|| netlink(SockProtocol::NetlinkNetFilter));
    let mut client = Client::try_from(open()).unwrap();
    let mut events = Events::try_from(open()).unwrap();
    assert_eq!(client.apply(&compiled(POLICY)), Ok(Applied::Installed));
    assert!(events.any(|event| matches!(event, Ok(Event::NewTable(_)))));
    assert_eq!(ok(&host, "nft list tables").trim(), "table inet ephport");
    let found = |fd: OwnedFd| match Client::try_from(fd) {
        Err(Error::Netlink(NetlinkError::OtherSocket { found })) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(found(netlink(SockProtocol::NetlinkRoute)), "netlink protocol 0");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(found(udp.into()), "a socket of address family 2");
    assert_eq!(found(std::fs::File::open("/dev/null").unwrap().into()), "no socket");
}

#[test]
fn events_are_polled_and_own_commits_recognized() {
    let host = Host::new("host").unwrap();
    let mut client = host.run(Client::open).unwrap();
    let mut events = host.run(Events::open).unwrap();
    let is_ready = |events: &Events| {
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    let commits = |events: &mut Events| -> Vec<Commit> {
        let all = std::iter::from_fn(|| events.try_next()).map(|event| event.expect("an event"));
        all.filter_map(|event| match event {
            Event::Generation(commit) => Some(commit),
            event => {
                let table = event.table().map(|(family, name)| (family, name.to_vec()));
                assert!(
                    table == Some((1, b"ephport".to_vec()))
                        || !event.may_change(&ephport_nft::TableId::default())
                );
                None
            }
        })
        .collect()
    };
    assert!(!is_ready(&events));
    assert_eq!(events.try_next(), None);
    client.apply(&compiled(POLICY)).unwrap();
    assert!(is_ready(&events));
    let own = commits(&mut events);
    assert!(!is_ready(&events));
    let port_id = client.port_id().unwrap();
    assert!(own.iter().all(|commit| commit.is_of(port_id)), "{own:?}");
    let generations: Vec<_> = own.iter().map(|commit| commit.generation).collect();
    assert_eq!(generations, client.generations());
    assert_eq!(generations.len(), 2, "an enforced policy is installed in two transactions");
    ok(&host, "nft add table inet other");
    let other = commits(&mut events);
    assert!(other.iter().all(|commit| !commit.is_of(port_id)), "{other:?}");
    assert_eq!(other.len(), 1);
}

#[test]
fn an_interrupt_ends_waits_until_it_is_cleared() {
    let host = Host::new("host").unwrap();
    let interrupt = Interrupt::new().unwrap();
    let mut events = host
        .run(|| Options::new().interrupted_by(&interrupt).receive_buffer(1 << 20).events())
        .unwrap();
    let watcher = thread::spawn(move || {
        let count = events.by_ref().count();
        (count, events)
    });
    interrupt.raise();
    let (count, mut events) = watcher.join().unwrap();
    assert_eq!(count, 0);
    assert_eq!(events.next_within(Duration::MAX), None);
    ok(&host, "nft add table inet other");
    assert_eq!(events.next(), None);
    interrupt.clear();
    assert!(matches!(events.next(), Some(Ok(Event::OtherTable { .. }))));
}

#[test]
fn an_interrupted_or_late_client_changes_nothing() {
    let host = Host::new("host").unwrap();
    let interrupt = Interrupt::new().unwrap();
    let desired = compiled(POLICY);
    let mut client = host.run(|| Options::new().interrupted_by(&interrupt).open()).unwrap();
    interrupt.raise();
    assert_eq!(client.apply(&desired), Err(Error::Cancelled));
    let mut late = host.run(|| Options::new().deadline(Duration::ZERO).open()).unwrap();
    assert_eq!(late.apply(&desired), Err(Error::DeadlineExceeded));
    assert_eq!(ok(&host, "nft list ruleset"), "");
    interrupt.clear();
    assert_eq!(client.apply(&desired), Ok(Applied::Installed));
    interrupt.raise();
    assert_eq!(client.remove(), Err(Error::Cancelled));
    assert_eq!(ok(&host, "nft list tables").trim(), "table inet ephport");
}
