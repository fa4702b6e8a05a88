//! P1, P2 and P3 on random walks of the shipped decision code. `SEEDS=100000 cargo test -p sim` walks
//! further; a failure prints its seed, and `SEED=n` replays it.

use shared::settings::Settings;
use sim::Walk;

/// The seeds to walk, and how many there are by default.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(default),
    }
}

fn walk(walk: &Walk, default: u64) {
    let seeds = seeds(default);
    let (mut acknowledged, mut promotions, mut longest) = (0, 0, 0);
    for seed in seeds.clone() {
        match walk.run(seed) {
            Ok(summary) => {
                acknowledged += summary.acknowledged;
                promotions += summary.promotions;
                longest = longest.max(summary.rounds);
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{acknowledged} commits, {promotions} promotions, {longest} rounds at most to heal");
    let walks = usize::try_from(seeds.end - seeds.start).unwrap();
    // A simulator in which nothing happens shows nothing.
    assert!(acknowledged > walks, "{acknowledged} commits in {walks} walks");
    assert!(walks < 100 || promotions > walks, "{promotions} promotions in {walks} walks");
}

#[test]
fn two_nodes() {
    walk(&Walk::new(2), 1000);
}

#[test]
fn three_nodes() {
    walk(&Walk::new(3), 1000);
}

#[test]
fn five_nodes_of_which_two_are_waited_for() {
    let settings = Settings { number_sync_standbys: Some(2), ..Walk::new(5).settings };
    walk(&Walk { settings, ..Walk::new(5) }, 150);
}
