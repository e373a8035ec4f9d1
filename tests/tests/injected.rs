//! The binary, with an error injected at each of its netlink calls: its output is true.

use std::process::Output;
use std::thread;

use ephport_nft::{Client, Installed, TableState};
use ephport_tests::strace::{Point, inject, points, traced};
use ephport_tests::{Host, PolicyFile, apply, compiled, installed, is_long};

/// The calls with which a program speaks netlink.
const CALLS: [&str; 6] = ["socket", "bind", "setsockopt", "getsockopt", "sendto", "recvmsg"];

/// The errors of a kernel without memory, permission or order; and some that it never returns.
const ERRNOS: [&str; 28] = [
    "EPERM",
    "ENOENT",
    "EIO",
    "E2BIG",
    "EBADF",
    "EAGAIN",
    "ENOMEM",
    "EACCES",
    "EFAULT",
    "EBUSY",
    "EEXIST",
    "ENODEV",
    "EINVAL",
    "ENFILE",
    "EMFILE",
    "ENOSPC",
    "EPIPE",
    "ENOSYS",
    "EPROTO",
    "EOVERFLOW",
    "EMSGSIZE",
    "EPROTONOSUPPORT",
    "EOPNOTSUPP",
    "EAFNOSUPPORT",
    "ECONNRESET",
    "ENOBUFS",
    "ETIMEDOUT",
    "ECONNREFUSED",
];

/// At each call every errno whose number has this remainder, fewer where ports are rewritten; with `--long` all.
const SHARE: usize = 4;

const THREADS: usize = 2;

fn document(ports: &str) -> String {
    format!("[[policy]]\nname = \"p\"\nout-interfaces = \"any\"\nto-ports = \"{ports}\"\n")
}

/// What is asked of the binary.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Task {
    Apply,
    Status,
    Remove,
    /// The same over a table that rewrites ports.
    ApplyOverRemap,
    RemoveRemap,
}

impl Task {
    const ALL: [Self; 5] =
        [Self::Apply, Self::Status, Self::Remove, Self::ApplyOverRemap, Self::RemoveRemap];

    fn is_over_remap(self) -> bool {
        matches!(self, Self::ApplyOverRemap | Self::RemoveRemap)
    }
}

/// A host, and the tables before and after.
struct Scene {
    host: Host,
    nft: Client,
    old: TableState,
    remapped: TableState,
    new: TableState,
    policy: PolicyFile,
}

impl Scene {
    fn new() -> Self {
        let host = Host::new("host").unwrap();
        let text = document("20000-20999,30000-30999,49152-61000");
        Self {
            nft: host.run(Client::open).unwrap(),
            host,
            old: compiled(&document("1024-2047,3000-3999")),
            remapped: compiled(&format!(
                "{}spread = \"remap\"\naddress = \"masquerade\"\n",
                document("1024-2047,3000-3999")
            )),
            new: compiled(&text),
            policy: PolicyFile::new(&text),
        }
    }

    /// The table over which the task is done.
    fn old(&self, task: Task) -> &TableState {
        if task.is_over_remap() { &self.remapped } else { &self.old }
    }

    /// Does the task over the old table, under strace with these options.
    fn perform(&mut self, task: Task, options: &[&str]) -> (Output, String) {
        let old = self.old(task).clone();
        self.nft.apply(&old).unwrap();
        let words = match task {
            Task::Apply | Task::ApplyOverRemap => vec!["apply", self.policy.path()],
            Task::Status => vec!["status"],
            Task::Remove | Task::RemoveRemap => vec!["remove"],
        };
        let run = traced(&self.host, options, &words);
        (run.output, run.calls)
    }

    /// Whether the verdict is the state of the kernel.
    fn is_true(&mut self, task: Task, output: &Output) -> bool {
        let installed_table = match self.nft.installed().unwrap() {
            Installed::Ours { ruleset, intact: true, .. } => Some(ruleset),
            Installed::Absent => None,
            other => panic!("torn: {other:?}"),
        };
        let installed_table = installed_table.as_ref().map(TableState::normalized);
        let is_old = installed_table == Some(self.old(task).normalized());
        let prints = |text: &str| String::from_utf8_lossy(&output.stdout).starts_with(text);
        match (task, output.status.code()) {
            (Task::Apply | Task::ApplyOverRemap, Some(0)) => {
                installed_table == Some(self.new.normalized())
            }
            (Task::Status, Some(0)) => is_old && prints("intact: table inet ephport"),
            (Task::Remove | Task::RemoveRemap, Some(0)) => {
                installed_table.is_none() && prints("removed table inet ephport")
            }
            (_, Some(1)) => is_old && output.stderr.starts_with(b"error: "),
            _ => false,
        }
    }
}

/// The netlink calls of the task.
fn calls_of(task: Task) -> Vec<Point> {
    let trace = format!("--trace={}", CALLS.join(","));
    let (output, calls) = Scene::new().perform(task, &[&trace]);
    assert!(output.status.success(), "{output:?}");
    points(&calls)
}

/// Injects what `errnos` gives for each call, numbered, of each task; what was printed and is not so.
fn inject_everywhere(
    errnos: impl Fn(Task, usize) -> Vec<&'static str> + Sync,
) -> (usize, Vec<String>) {
    let mut runs = Vec::new();
    for task in Task::ALL {
        for (number, point) in calls_of(task).into_iter().enumerate() {
            runs.extend(errnos(task, number).into_iter().map(|errno| (task, point.clone(), errno)));
        }
    }
    let wrong = thread::scope(|scope| {
        let check = |first| {
            let own: Vec<_> = runs.iter().skip(first).step_by(THREADS).collect();
            scope.spawn(move || {
                let mut scene = Scene::new();
                let mut wrong = Vec::new();
                for (task, point, errno) in own {
                    let [only, inject] = inject(point, &format!("error={errno}"));
                    let (output, _) = scene.perform(*task, &[&only, &inject]);
                    let is_interruption = *errno == "EINTR";
                    if !scene.is_true(*task, &output) || is_interruption && !output.status.success()
                    {
                        wrong.push(format!("{task:?}: {errno} at {point:?}: {output:?}"));
                    }
                }
                wrong
            })
        };
        let threads: Vec<_> = (0..THREADS).map(check).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    (runs.len(), wrong)
}

#[test]
fn eintr_at_any_call_changes_nothing() {
    let errnos = |task: Task, call: usize| {
        let is_due = is_long() || !task.is_over_remap() || call.is_multiple_of(3);
        is_due.then_some("EINTR").into_iter().collect()
    };
    let (runs, wrong) = inject_everywhere(errnos);
    println!("EINTR at {runs} calls");
    assert!(wrong.is_empty() && runs > 80, "{} of {runs}: {wrong:#?}", wrong.len());
}

#[test]
fn no_injected_error_makes_a_false_verdict() {
    let errnos = |task: Task, call: usize| {
        // Ports are rewritten over some hundred calls.
        let share = if task.is_over_remap() { ERRNOS.len() } else { SHARE };
        let is_due = |number: usize| is_long() || number % share == call % share;
        (0..).zip(ERRNOS).filter(|(number, _)| is_due(*number)).map(|(_, errno)| errno).collect()
    };
    let (runs, wrong) = inject_everywhere(errnos);
    println!("{runs} errors injected");
    assert!(wrong.is_empty() && runs > 500, "{} of {runs}: {wrong:#?}", wrong.len());
}

/// Without the host's sockets, open UDP connections cannot be followed: `apply` reports it, in JSON too.
#[test]
fn sockets_that_cannot_be_read_are_a_warning() {
    let trace = format!("--trace={}", CALLS.join(","));
    let mut scene = Scene::new();
    let (_, calls) = scene.perform(Task::Apply, &[&trace]);
    let mut warned = 0;
    for point in points(&calls).into_iter().filter(|(call, _)| call == "socket") {
        let mut scene = Scene::new();
        let [only, inject] = inject(&point, "error=EMFILE");
        scene.nft.remove().unwrap();
        let words = ["apply", scene.policy.path(), "--json"];
        let output = traced(&scene.host, &[&only, &inject], &words).output;
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || err.contains("Too many open files"), "{output:?}");
        if err.contains("open UDP connections of this host may be translated") {
            warned += 1;
            let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let is_known = |warning: &serde_json::Value| {
                warning["kind"] == "open-connections"
                    && warning["message"].as_str().unwrap().contains("Too many open files")
            };
            assert!(printed["warnings"].as_array().unwrap().iter().any(is_known), "{printed}");
        }
    }
    assert_eq!(warned, 1);
}

#[test]
fn the_judge_knows_a_false_verdict() {
    let mut scene = Scene::new();
    let (mut output, _) = scene.perform(Task::Remove, &[]);
    assert!(scene.is_true(Task::Remove, &output));
    apply(&scene.host, &scene.old);
    assert!(matches!(installed(&scene.host), Installed::Ours { .. }));
    assert!(!scene.is_true(Task::Remove, &output));
    output.status = scene.perform(Task::Status, &["--trace=none"]).0.status;
    assert!(!scene.is_true(Task::Remove, &output) && !scene.is_true(Task::Apply, &output));
}
