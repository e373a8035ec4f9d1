//! The log of a program that embeds the crate: with the feature `tracing`, a span for each apply, and events for
//! retries, refusals and drift. Without it nothing is recorded.
//!
//! | name | level | fields |
//! |---|---|---|
//! | span `apply` | info | `table`, its name, and `rules`, how many it has |
//! | event `retry` | debug | `tries` so far, `reason` |
//! | event `refused` | warn | `error`, the message |
//! | event `drift` | warn | `location`, `attribute`, `difference`, one sentence |

use std::fmt::Display;

use crate::plan::drift::Drift;
use crate::table::TableState;

#[cfg(feature = "tracing")]
pub(crate) fn apply(desired: &TableState) -> tracing::span::EnteredSpan {
    tracing::info_span!("apply", table = %desired.table.name, rules = desired.rules.len()).entered()
}

#[cfg(feature = "tracing")]
pub(crate) fn retry(tries: u32, reason: &str) {
    tracing::debug!(name: "retry", tries, reason);
}

#[cfg(feature = "tracing")]
pub(crate) fn refusal(error: &impl Display) {
    tracing::warn!(name: "refused", %error);
}

#[cfg(feature = "tracing")]
pub(crate) fn drift(drift: &[Drift]) {
    for difference in drift {
        let Drift { location, attribute, .. } = difference;
        tracing::warn!(name: "drift", %location, attribute = attribute.name(), %difference);
    }
}

/// In the place of a span.
#[cfg(not(feature = "tracing"))]
pub(crate) struct NoSpan;

#[cfg(not(feature = "tracing"))]
pub(crate) fn apply(_: &TableState) -> NoSpan {
    NoSpan
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn retry(_: u32, _: &str) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn refusal(_: &impl Display) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn drift(_: &[Drift]) {}
