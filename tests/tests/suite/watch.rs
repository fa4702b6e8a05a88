//! `pgtandem watch` in a real terminal: what a person sees, and what the keys do.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Terminal, binaries, process};

/// The lines that are about a node, from the top.
fn nodes(screen: &str) -> Vec<&str> {
    let above_events = screen.lines().take_while(|line| !line.starts_with("Events"));
    let is_node = |line: &&str| {
        let name = line.trim_start_matches(['├', '└', '│', ' ']);
        name.starts_with("node") && !name.starts_with("node ")
    };
    above_events.filter(is_node).collect()
}

/// Starts it, and says how it ended once it has.
fn start(terminal: &Terminal, cluster: &Cluster) -> Result<()> {
    let program = binaries::ours("pgtandem")?;
    let url = cluster.monitor().url();
    terminal.write(&format!("{} watch --monitor {url}; echo exit=$?", program.display()))?;
    terminal.press("Enter")
}

/// The program has ended well, and the terminal is as it was: not on the alternate screen, and showing what
/// is typed.
async fn is_restored(terminal: &Terminal) -> Result<()> {
    terminal.shows("the exit code", |screen| screen.contains("\nexit=0\n")).await?;
    ensure!(!terminal.is_taken()?, "the alternate screen is still there");
    ensure!(terminal.has_cursor()?, "the cursor is gone");
    terminal.write("stty -a")?;
    terminal.press("Enter")?;
    let whole = |screen: &str| screen.contains("ready> stty -a") && screen.contains("echoctl");
    let modes = terminal.shows("what is typed, and the modes", whole).await?;
    for mode in [" icanon", " echo ", " isig"] {
        ensure!(modes.replace('\n', " ").contains(mode), "{mode}: {modes}");
    }
    terminal.write("clear")?;
    terminal.press("Enter")?;
    // What is typed before is wiped away as well, and with it the end of its line.
    terminal.shows("nothing but the prompt", |screen| screen.trim() == "ready>").await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_terminal() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let status = cluster.settled().await?;
    let primary = status.primary.as_ref().context("no primary")?.as_str();
    let terminal = Terminal::open(cluster.sandbox().root(), 120, 30).await?;
    start(&terminal, &cluster)?;

    // The primary on top, the standby below it, and the events.
    let settled = |screen: &str| {
        let nodes = nodes(screen);
        nodes.len() == 2 && screen.contains("writable") && screen.contains("sync-confirmed")
    };
    let screen = terminal.shows("the tree", settled).await?;
    ensure!(terminal.is_taken()?, "it draws over what was there");
    let lines = nodes(&screen);
    ensure!(lines[0].starts_with(primary), "{screen}");
    ensure!(lines[1].starts_with("└ node") && lines[1].contains(" secondary "), "{screen}");
    let words = ["Timeline:LSN", "Behind", "Heard", "Host:Port", "primary heard", "lease "];
    ensure!(words.iter().all(|word| screen.contains(word)), "{screen}");

    // What is written moves the position, though nothing is decided.
    let before = position(&screen).context("no position")?;
    cluster.node(primary)?.sql().await?.run("create table moved (id int)").await?;
    let moved = |screen: &str| position(screen).is_some_and(|now| now != before);
    terminal.shows("another position", moved).await?;

    keys(&terminal).await?;

    // Nobody presses anything, and what happens is seen.
    let newest = cluster.monitor().newest_event().await?;
    cluster.node(primary)?.kill_postmaster()?;
    let event = eventually("an event", DEADLINE, async || {
        let events = cluster.monitor().events(newest).await?;
        Ok(events.into_iter().next().ok_or_else(|| "none".to_owned()))
    });
    let event = event.await?;
    let (time, reason) = (event.at.format("%H:%M:%S").to_string(), first_words(&event.reason));
    let told =
        |screen: &str| screen.lines().any(|line| line.starts_with(&time) && line.contains(&reason));
    terminal.shows("the event", told).await?;
    cluster.settled().await?;

    terminal.press("q")?;
    is_restored(&terminal).await?;
    cluster.pass();
    Ok(())
}

/// As much of a reason as fits into any line.
fn first_words(reason: &str) -> String {
    reason.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Timeline and LSN of the first node.
fn position(screen: &str) -> Option<String> {
    let node = nodes(screen).into_iter().next()?;
    let is_position = |word: &&str| word.contains(':') && word.contains('/');
    node.split_whitespace().find(is_position).map(str::to_owned)
}

/// The keys that change what is seen, and other sizes.
async fn keys(terminal: &Terminal) -> Result<()> {
    terminal.press("?")?;
    terminal.shows("the help", |screen| screen.contains(" Keys ")).await?;
    terminal.press("Escape")?;
    terminal.shows("no help", |screen| !screen.contains(" Keys ")).await?;
    terminal.press("s")?;
    terminal.shows("another order", |screen| screen.contains("sort: state")).await?;
    terminal.press("p")?;
    terminal.shows("a held picture", |screen| screen.contains("THIS PICTURE IS HELD")).await?;
    terminal.press("p")?;
    terminal.shows("a live picture", |screen| !screen.contains("IS HELD")).await?;
    resize(terminal, 40, 16).await?;
    // Here not all events fit.
    terminal.press("Up")?;
    terminal.shows("older events", |screen| screen.contains("Older events")).await?;
    terminal.press("End")?;
    terminal.shows("the newest events", |screen| !screen.contains("Older events")).await?;
    resize(terminal, 120, 30).await
}

/// Another size, and what of the nodes fits into it.
async fn resize(terminal: &Terminal, wide: u16, tall: u16) -> Result<()> {
    terminal.resize(wide, tall)?;
    let fits = |screen: &str| {
        let address = screen.contains("Host:Port") == (wide == 120);
        nodes(screen).len() == 2 && address && screen.contains("q quit")
    };
    terminal.shows(&format!("{wide} columns"), fits).await.map(drop)
}

/// Whatever ends it from outside, the terminal is as it was; and where that is closed, it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_ended_from_outside() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster.settled().await?;
    let terminal = Terminal::open(cluster.sandbox().root(), 80, 24).await?;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        start(&terminal, &cluster)?;
        terminal.shows("the node", |screen| nodes(screen).len() == 1).await?;
        ensure!(terminal.is_taken()? && !terminal.has_cursor()?, "it has not begun");
        process::signal(terminal.program()?, signal)?;
        is_restored(&terminal).await.with_context(|| format!("after {signal:?}"))?;
    }
    start(&terminal, &cluster)?;
    terminal.shows("the node", |screen| nodes(screen).len() == 1).await?;
    let watch = terminal.program()?;
    drop(terminal);
    eventually("the end without a terminal", DEADLINE, async || {
        Ok(if process::is_alive(watch) { Err("it is still there".to_owned()) } else { Ok(()) })
    })
    .await?;
    cluster.pass();
    Ok(())
}

/// A monitor that is gone, and one that is back; and the end by Ctrl-C.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_monitor() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let terminal = Terminal::open(cluster.sandbox().root(), 80, 24).await?;
    start(&terminal, &cluster)?;
    terminal.shows("the node", |screen| nodes(screen).len() == 1).await?;
    cluster.monitor().kill()?;
    let old = |screen: &str| screen.contains("THIS WAS SO") && nodes(screen).len() == 1;
    terminal.shows("an old picture", old).await?;
    cluster.monitor().start()?;
    terminal.shows("a new picture", |screen| !screen.contains("THIS WAS SO")).await?;
    cluster.settled().await?;
    terminal.press("C-c")?;
    is_restored(&terminal).await?;
    cluster.pass();
    Ok(())
}
