//! The feature `tracing`: one span for each apply, one event for each retry, refusal and difference, as a subscriber
//! of another program gets them.

mod scripted;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use ephport_nft::{Client, Errno};
use expect_test::expect;
use scripted::{BatchFault, Kernel, ruleset};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A line for each span and event, with its level, its name and its fields.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Lines {
    fn add(&self, kind: &str, metadata: &Metadata<'_>, record: impl FnOnce(&mut Line<'_>)) {
        let mut lines = self.0.lock().unwrap();
        write!(lines, "{} {kind} {}", metadata.level(), metadata.name()).unwrap();
        record(&mut Line(&mut lines));
        lines.push('\n');
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ephport_nft")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.add("span", span.metadata(), |line| span.record(line));
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        self.add("event", event.metadata(), |line| event.record(line));
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn lines(call: impl FnOnce()) -> String {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), call);
    lines.0.lock().unwrap().clone()
}

#[test]
fn apply_is_a_span_and_a_retry_an_event() {
    let desired = ruleset("49152-61000");
    let mut kernel = Kernel { batch_faults: [BatchFault::Overtaken].into(), ..Kernel::default() };
    let lines = lines(|| {
        Client::with_transport(&mut kernel).apply(&desired).unwrap();
    });
    expect![[r#"
        INFO span apply table=ephport rules=6
        DEBUG event retry tries=0 reason="another process changed the ruleset"
    "#]]
    .assert_eq(&lines);
}

#[test]
fn refusal_is_an_event() {
    let fault = BatchFault::Fails { at: vec![(1, Errno::EEXIST)], acked: false };
    let mut kernel = Kernel { batch_faults: [fault].into(), ..Kernel::default() };
    let lines = lines(|| {
        Client::with_transport(&mut kernel).apply(&ruleset("49152-61000")).unwrap_err();
    });
    expect![[r#"
        INFO span apply table=ephport rules=6
        WARN event refused error=the kernel refused to add table ephport (EEXIST: File exists): an object with this name and another type exists
    "#]].assert_eq(&lines);
}

#[test]
fn each_difference_is_an_event() {
    let desired = ruleset("49152-61000");
    let mut changed = desired.clone();
    changed.rules.pop();
    let mut kernel = Kernel { ruleset: Some(changed), ..Kernel::default() };
    let lines = lines(|| {
        Client::with_transport(&mut kernel).status(&desired).unwrap();
    });
    expect![[r#"
        WARN event drift location=policy default, rule 6 of postrouting attribute="object" difference=policy default, rule 6 of postrouting is missing: oifname "eth0" meta l4proto udp th sport 1024-65535 counter packets 0 bytes 0 masquerade to :49152-61000
    "#]].assert_eq(&lines);
}
