//! P1, P2 and P3 on random walks of the shipped decision code. `SEEDS=100000 cargo test -p sim` walks
//! further; a failure prints its seed, and `SEED=n` replays it, as `sim replay` does.

use shared::settings::Settings;
use sim::Walk;
use sim::disturb::{CASCADES, LOST_RECORDS};

/// The seeds to walk, and how many there are by default.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(default),
    }
}

/// Says how often a node was sent to a standby.
fn walk(walk: &Walk, default: u64) -> usize {
    let seeds = seeds(default);
    let (mut acknowledged, mut promotions, mut longest, mut cascaded) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        match walk.run(seed) {
            Ok(summary) => {
                acknowledged += summary.acknowledged;
                promotions += summary.promotions;
                longest = longest.max(summary.rounds);
                cascaded += summary.cascaded;
            }
            Err(failure) => panic!("{}", walk.shorten(&failure)),
        }
    }
    println!("{acknowledged} commits, {promotions} promotions, {longest} rounds at most to heal");
    let walks = usize::try_from(seeds.end - seeds.start).unwrap();
    // A simulator in which nothing happens shows nothing.
    assert!(acknowledged > walks, "{acknowledged} commits in {walks} walks");
    assert!(walks < 100 || promotions * 5 > walks, "{promotions} promotions in {walks} walks");
    cascaded
}

/// Shorter than by hand, and rougher: there are ten thousand.
fn short(nodes: u64) -> Walk {
    Walk { actions: 1200, calm: 30, ..Walk::new(nodes) }
}

#[test]
fn two_nodes() {
    walk(&short(2), 2000);
}

#[test]
fn three_nodes() {
    walk(&short(3), 3000);
}

#[test]
fn four_nodes() {
    walk(&short(4), 2000);
}

#[test]
fn five_nodes_of_which_two_are_waited_for() {
    let settings = Settings { number_sync_standbys: Some(2), ..Walk::new(5).settings };
    walk(&Walk { settings, ..short(5) }, 1200);
}

#[test]
fn six_nodes() {
    walk(&short(6), 700);
}

#[test]
fn seven_nodes() {
    walk(&short(7), 600);
}

#[test]
fn three_groups_below_one_monitor() {
    walk(&Walk { groups: 3, actions: 3600, ..short(3) }, 500);
}

/// Rule 14: what comes of a record that was lost is as good as the one before.
#[test]
fn three_nodes_below_a_monitor_that_loses_its_record() {
    walk(&Walk { mix: LOST_RECORDS, ..short(3) }, 1500);
}

#[test]
fn four_nodes_below_a_monitor_that_loses_its_record() {
    walk(&Walk { mix: LOST_RECORDS, ..short(4) }, 700);
}

#[test]
fn two_nodes_below_a_monitor_that_loses_its_record() {
    walk(&Walk { mix: LOST_RECORDS, ..short(2) }, 700);
}

/// Whoever goes to a standby waits until that has been streaming for a while.
fn cascading(nodes: u64) -> Walk {
    Walk { mix: CASCADES, cascades: true, actions: 2500, calm: 100, ..short(nodes) }
}

/// Standbys of standbys, whichever of them dies.
#[test]
fn four_nodes_that_stream_from_each_other() {
    let cascaded = walk(&cascading(4), 600);
    assert!(std::env::var_os("SEED").is_some() || cascaded > 600, "{cascaded} moves to a standby");
}

#[test]
fn six_nodes_that_stream_from_each_other() {
    walk(&cascading(6), 300);
}

#[test]
fn the_same_seed_is_the_same_walk() {
    let once = format!("{:?}", short(3).run(5).unwrap());
    assert_eq!(once, format!("{:?}", short(3).run(5).unwrap()));
}
