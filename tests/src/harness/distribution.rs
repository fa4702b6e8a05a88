//! Times of one kind, and what is said of them.

use std::time::Duration;

/// Times of one kind.
#[derive(Clone, Debug, Default)]
pub struct Distribution(pub Vec<Duration>);

impl Distribution {
    /// By the nearest rank.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort();
        let rank = (percent * sorted.len()).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    /// Least, half, 95 of a hundred, most: in seconds, each in a column of eight.
    pub fn columns(&self) -> String {
        let seconds = |percent| match self.percentile(percent) {
            Some(time) => format!("{:8.3}", time.as_secs_f64()),
            None => format!("{:>8}", "-"),
        };
        [0, 50, 95, 100].map(seconds).join(" ")
    }

    /// The heads of these columns.
    pub fn heads() -> String {
        ["min", "p50", "p95", "max"].map(|head| format!("{head:>8}")).join(" ")
    }

    /// The newest, in seconds; 0 where there is none.
    pub fn newest(&self) -> f64 {
        self.0.last().map_or(0.0, Duration::as_secs_f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_the_nearest_rank() {
        let times = Distribution((1..=20).rev().map(Duration::from_millis).collect());
        let ms = |percent| times.percentile(percent).unwrap().as_millis();
        assert_eq!([0, 50, 95, 100].map(ms), [1, 10, 19, 20]);
        assert_eq!(Distribution::default().percentile(50), None);
        assert_eq!(times.columns().len(), Distribution::heads().len());
    }
}
