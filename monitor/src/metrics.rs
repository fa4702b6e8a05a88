//! What is counted since the process started; the rest of `/metrics` is read from the groups.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The upper bounds of the histogram of decisions, in milliseconds.
const BUCKETS: [u64; 8] = [1, 2, 5, 10, 50, 100, 500, 1000];

/// The counters.
#[derive(Debug, Default)]
pub struct Metrics {
    reports: AtomicU64,
    events: Mutex<BTreeMap<String, u64>>,
    decisions: Mutex<Decisions>,
}

#[derive(Debug, Default)]
struct Decisions {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum_ms: u64,
}

impl Metrics {
    /// A report was taken in.
    pub fn report(&self) {
        self.reports.fetch_add(1, Ordering::Relaxed);
    }

    /// An event became durable.
    pub fn event(&self, kind: &str) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        *events.entry(kind.to_owned()).or_default() += 1;
    }

    /// A decision became durable after so many milliseconds.
    pub fn decision(&self, ms: u64) {
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.count += 1;
        decisions.sum_ms = decisions.sum_ms.saturating_add(ms);
        for (bucket, bound) in decisions.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(ms <= bound);
        }
    }

    /// In Prometheus' text format.
    pub fn write(&self, text: &mut String) -> std::fmt::Result {
        header(text, "reports_total", "counter", "Reports taken in from keepers.")?;
        writeln!(text, "pgtandem_reports_total {}", self.reports.load(Ordering::Relaxed))?;
        header(text, "events_total", "counter", "Events stored since the start, by kind.")?;
        for (kind, count) in &*self.events.lock().unwrap_or_else(PoisonError::into_inner) {
            writeln!(text, "pgtandem_events_total{{kind=\"{kind}\"}} {count}")?;
        }
        let name = "pgtandem_decision_seconds";
        header(text, "decision_seconds", "histogram", "Time to make a decision durable.")?;
        let decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        for (count, bound) in decisions.buckets.iter().zip(BUCKETS) {
            writeln!(text, "{name}_bucket{{le=\"{}\"}} {count}", seconds(bound))?;
        }
        writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {}", decisions.count)?;
        writeln!(text, "{name}_sum {}", seconds(decisions.sum_ms))?;
        writeln!(text, "{name}_count {}", decisions.count)
    }
}

/// The two lines before a metric's values.
pub fn header(text: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(text, "# HELP pgtandem_{name} {help}\n# TYPE pgtandem_{name} {kind}")
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_histogram_is_cumulative() {
        let metrics = Metrics::default();
        metrics.decision(1);
        metrics.decision(7);
        metrics.decision(2500);
        let mut text = String::new();
        metrics.write(&mut text).unwrap();
        assert!(text.contains("bucket{le=\"0.005\"} 1\n"), "{text}");
        assert!(text.contains("bucket{le=\"0.010\"} 2\n"), "{text}");
        assert!(text.contains("bucket{le=\"+Inf\"} 3\n"), "{text}");
        assert!(text.contains("_sum 2.508\n"), "{text}");
    }
}
