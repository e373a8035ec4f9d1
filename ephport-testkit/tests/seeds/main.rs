//! The client on the fake kernel, with faults and other writers at random calls: what it says is true. A
//! seed decides everything; `EPHPORT_SEED=7 cargo test -p ephport-testkit --test seeds` runs one alone.

mod others;
mod verdict;

use std::env;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ephport_core::strategies::documents;
use ephport_core::{Address, HostFacts, Policy, PortSet};
use ephport_nft::client::{Transport, Undo};
use ephport_nft::table::layout::TABLE;
use ephport_nft::{Client, Plan};
use ephport_testkit::kernel::{Faults, Socket};
use ephport_testkit::{Kernel, Random};
use others::Others;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use verdict::{Said, Seen, Task};

/// The seeds of a run; with `EPHPORT_LONG` ten times as many.
const SEEDS: u64 = 100_000;

/// Policies whose programs have every kind of object, and are small: each seed reads some 20 tables. With
/// `EPHPORT_LONG` any policies too.
static POOL: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let facts = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
    let mut random = Random::new(0);
    let small = std::iter::repeat_with(|| small_policies(&mut random)).take(200);
    let plans = small.filter_map(|policies| Plan::new(&policies, &facts).ok());
    let mut plans: Vec<_> = plans.collect();
    if is_long() {
        let mut runner = TestRunner::deterministic();
        let documents = std::iter::repeat_with(|| documents().new_tree(&mut runner).unwrap());
        let any = documents.take(100).map(|document| document.current());
        plans.extend(any.filter_map(|any| Plan::new(any.policies(), &facts).ok()));
    }
    plans
});

/// Namespaces in which the policies are installed.
static INSTALLED: LazyLock<Vec<Kernel>> = LazyLock::new(|| {
    let install = |plan| {
        let kernel = Kernel::new();
        Client::with_transport(kernel.socket()).apply(plan).expect("no fault");
        kernel
    };
    POOL.iter().map(install).collect()
});

/// One or two policies of the same names in each document, so that updates keep parts.
fn small_policies(random: &mut Random) -> Vec<Policy> {
    const PORTS: [&str; 5] = [
        "49152-61000",
        "1024-2047,3000-3999",
        "20000-20999,30000-30499,40000-40099",
        "5000",
        "6000-7000",
    ];
    const INTERFACES: [&[&str]; 3] = [&["eth0"], &["eth1", "wg*"], &["any"]];
    const PROTOCOLS: [&[&str]; 4] = [&["tcp"], &["udp"], &["tcp", "udp"], &["icmp", "udp"]];
    let names = ["a", "b"].into_iter().take(if random.chance(300) { 2 } else { 1 });
    let policies = names.filter_map(|name| {
        let ports: PortSet = PORTS[random.below(PORTS.len())].parse().ok()?;
        let mut policy = Policy::to(ports)
            .named(name)
            .out(INTERFACES[random.below(INTERFACES.len())])
            .protocols(PROTOCOLS[random.below(PROTOCOLS.len())]);
        // The default keeps some addresses, in many rules.
        if random.chance(900) {
            policy = policy.address(Address::Masquerade);
        }
        if random.chance(300) {
            policy = policy.with("timeouts", ["udp-unreplied=5"]);
        }
        if random.chance(300) {
            policy = policy.with("spread", ["weighted"]);
        }
        if random.chance(400) {
            policy = policy.enforce();
        }
        policy.build().ok()
    });
    policies.collect()
}

fn is_long() -> bool {
    env::var_os("EPHPORT_LONG").is_some()
}

/// A client, its kernel, and what has happened.
struct World {
    random: Random,
    kernel: Kernel,
    /// The faults and the acts of others, in 1000 calls.
    per_mille: (u32, u32),
    undo: Option<(Undo, Vec<Kernel>)>,
    /// Of the client's socket.
    port_id: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rates = [(0, 0), (0, 60), (60, 0), (60, 60), (10, 10), (200, 200)];
        let per_mille = rates[random.below(rates.len())];
        Self { random, kernel: Kernel::new(), per_mille, undo: None, port_id: 0 }
    }

    fn plan(&mut self) -> &'static Plan {
        self.random.pick(&POOL).unwrap()
    }

    /// A socket of the client, which may end at any call.
    fn socket(&mut self) -> Socket {
        let (faults, others) = self.per_mille;
        let mut faults = Faults::new(self.random.next_u64(), faults);
        if others > 0 {
            faults = faults.with_whole_batches();
        }
        if self.random.chance(100) {
            faults = faults.with_death(u32::try_from(self.random.below(40)).unwrap());
        }
        let others = Others::new(self.random.next_u64(), others, &POOL);
        let slices = [1, 2, 5, 32][self.random.below(4)];
        let socket = self.kernel.socket().with_slices(slices).with_faults(faults);
        self.port_id = socket.port_id().unwrap();
        if others.is_quiet() {
            return socket;
        }
        let mut others = others;
        socket.before_each_call(move |kernel| others.act(kernel))
    }

    fn run(&mut self) -> Said {
        if self.random.chance(500) {
            self.kernel = self.random.pick(&INSTALLED).unwrap().snapshot();
        } else if self.random.chance(200) {
            Others::foreign_table(&self.kernel);
        }
        let mut client = None;
        for step in 0..=self.random.below(4) {
            let mut nft: Client<Socket> = match client.take() {
                Some(client) => client,
                None => Client::with_transport(self.socket()),
            };
            if self.random.chance(60) {
                match nft.owning() {
                    Ok(owner) => nft = owner,
                    Err(_) => continue,
                }
            }
            let task = self.task();
            self.step(&mut nft, task).map_err(|what| format!("step {step}, {task:?}: {what}"))?;
            client = Some(nft).filter(|_| self.random.chance(700));
        }
        Ok(())
    }

    fn task(&mut self) -> Task {
        match self.random.below(10) {
            0..3 => Task::Apply(self.plan()),
            3 => Task::DryRun(self.plan()),
            4 => Task::Status(self.plan()),
            5 => Task::Remove,
            6..8 => Task::ApplyUndoable(self.plan()),
            _ => Task::Undo,
        }
    }

    /// One call of the client, and the check of its result against the kernel.
    fn step(&mut self, client: &mut Client<Socket>, task: Task) -> Said {
        drop((self.kernel.take_commits(), self.kernel.take_faults()));
        let before = self.kernel.snapshot();
        let (kernel, port_id) = (self.kernel.clone(), self.port_id);
        let seen = || Seen::new(before.snapshot(), kernel.take_commits(), port_id);
        let said = match task {
            Task::Apply(plan) => {
                let result = client.apply(plan);
                seen().applied(plan, &result)
            }
            Task::DryRun(plan) => {
                let result = client.dry_run(plan);
                seen().would_apply(plan, &result)
            }
            Task::Status(plan) => {
                let result = client.status(plan);
                seen().status(&result)
            }
            Task::Remove => {
                let result = client.remove();
                seen().removed(&result)
            }
            Task::ApplyUndoable(plan) => {
                let result = client.apply_undoable(plan);
                let (seen, undo) =
                    (seen(), result.as_ref().ok().and_then(|(_, undo)| undo.clone()));
                self.undo = undo.map(|undo| (undo, seen.states()));
                seen.applied(plan, &result.map(|(applied, _)| applied))
            }
            Task::Undo => match &self.undo {
                None => Ok(()),
                Some((undo, states)) => {
                    let result = client.undo(undo);
                    seen().undone(states, &result)
                }
            },
        };
        let faults = self.kernel.take_faults();
        said.map_err(|what| format!("{what}\nfaults: {faults:?}\n{}", table_text(&self.kernel)))
    }
}

fn table_text(kernel: &Kernel) -> String {
    kernel.table(TABLE).map_or_else(|| "no table".into(), |table| table.to_nft().to_string())
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn check(seed: u64) {
    if let Err(what) = World::new(seed).run() {
        panic!("EPHPORT_SEED={seed}: {what}");
    }
}

#[test]
fn client_tells_the_truth_for_every_seed() {
    if let Some(seed) = number("EPHPORT_SEED") {
        return check(seed);
    }
    let long = if is_long() { 10 } else { 1 };
    let seeds = number("EPHPORT_SEEDS").unwrap_or(SEEDS * long);
    LazyLock::force(&INSTALLED);
    let next = AtomicU64::new(0);
    let run = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds {
            break;
        }
        check(seed);
    };
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(run))));
}
