//! The files in `deploy/`: there is no engine here to run them, so they are held against the programs.

use anyhow::{Context as _, Result, ensure};
use serde_yaml_ng::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tests::harness::binaries;
use tests::harness::process::command;

/// All instructions that a Dockerfile of ours needs.
const INSTRUCTIONS: [&str; 11] = [
    "FROM",
    "WORKDIR",
    "COPY",
    "RUN",
    "VOLUME",
    "USER",
    "ENTRYPOINT",
    "CMD",
    "STOPSIGNAL",
    "ENV",
    "ARG",
];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn compose() -> Result<Value> {
    let text = std::fs::read_to_string(file("deploy/compose.yaml"))?;
    let mut document: Value = serde_yaml_ng::from_str(&text)?;
    document.apply_merge()?;
    Ok(document)
}

fn words(value: &Value) -> Result<Vec<&str>> {
    let list = value.as_sequence().context("no list")?;
    list.iter().map(|word| word.as_str().context("no text")).collect()
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_mapping().into_iter().flat_map(|m| m.keys()).filter_map(Value::as_str).collect()
}

/// The unit that the program prints for these variables: it takes them, every one.
fn unit(service: &Value) -> Result<String> {
    let [program, "run"] = words(&service["command"])?[..] else {
        anyhow::bail!("not a program of ours: {:?}", service["command"]);
    };
    let definition = match program {
        "pgtandem-monitor" => monitor::cli::definition(),
        other => {
            ensure!(other == "pgtandem-keeper", "there is no {other}");
            keeper::cli::definition()
        }
    };
    let run = definition.find_subcommand("run").context("no run")?;
    let known: BTreeSet<_> =
        run.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let mut print = command(&binaries::ours(program)?);
    print.arg("systemd");
    for (name, value) in service["environment"].as_mapping().context("no environment")? {
        let name = name.as_str().context("no name")?;
        ensure!(known.contains(name), "{program} knows no {name}, but {known:?}");
        print.env(name, value.as_str().context("no value")?);
    }
    let output = print.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Its files are on a volume that is declared, below where that is mounted.
fn keeps_its_data(service: &Value, volumes: &BTreeSet<&str>) -> Result<()> {
    let mounts = words(&service["volumes"])?;
    let (volume, mounted) = mounts.first().and_then(|m| m.split_once(':')).context("no volume")?;
    ensure!(volumes.contains(volume), "volume {volume} is not declared");
    let environment = &service["environment"];
    let dir = environment["PGTANDEM_PGDATA"].as_str();
    let dir = dir.or(environment["PGTANDEM_DATA_DIR"].as_str()).context("no directory")?;
    let parent = Path::new(dir).parent().context("no parent")?;
    ensure!(parent == Path::new(mounted), "{dir} is not right below {mounted}");
    Ok(())
}

#[test]
fn the_compose_file_fits_the_programs() -> Result<()> {
    let document = compose()?;
    let volumes = names(&document["volumes"]);
    let services = document["services"].as_mapping().context("no services")?;
    ensure!(services.len() == 4, "a monitor and three keepers");
    for (name, service) in services {
        let about = || format!("service {name:?}");
        let unit = unit(service).with_context(about)?;
        let limit = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
        let grace = service["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s'));
        ensure!(limit.is_some() && grace == limit, "{name:?}: {grace:?} and not {limit:?}");
        keeps_its_data(service, &volumes).with_context(about)?;
        let is_monitor = unit.contains("pgtandem-monitor run");
        let url = words(&service["healthcheck"]["test"])?.pop().unwrap_or_default();
        let (port, path) = if is_monitor { (7432, "/readyz") } else { (8008, "/readiness") };
        ensure!(url == format!("http://127.0.0.1:{port}{path}"), "{name:?} is asked at {url}");
        let ports = words(&service["ports"])?;
        let inside: BTreeSet<_> = ports.iter().filter_map(|p| p.rsplit(':').next()).collect();
        let served: &[&str] = if is_monitor { &["7432"] } else { &["5432", "8008"] };
        ensure!(inside == served.iter().copied().collect(), "{name:?} publishes {ports:?}");
        ensure!(service["image"] == "pgtandem", "{name:?}");
    }
    Ok(())
}

#[test]
fn a_variable_that_nobody_knows_is_found() -> Result<()> {
    let mut document = compose()?;
    let environment = document["services"]["node1"]["environment"].as_mapping_mut();
    environment.context("no environment")?.insert("PGTANDEM_PGDATE".into(), "/a".into());
    let error = unit(&document["services"]["node1"]).unwrap_err().to_string();
    ensure!(error.contains("PGTANDEM_PGDATE"), "{error}");
    Ok(())
}

#[test]
fn the_dockerfile_fits_the_source() -> Result<()> {
    let text = std::fs::read_to_string(file("deploy/Dockerfile"))?.replace("\\\n", " ");
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<_> = lines.map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
    for (instruction, _) in &lines {
        ensure!(INSTRUCTIONS.contains(instruction), "{instruction} is no instruction");
    }
    let toolchain = std::fs::read_to_string(file("rust-toolchain.toml"))?;
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = "));
    let image = format!("rust:{}-", channel.context("no channel")?.trim_matches('"'));
    ensure!(lines.iter().any(|(i, rest)| *i == "FROM" && rest.starts_with(&image)), "{image}");
    let copied: BTreeSet<_> = lines
        .iter()
        .filter(|(instruction, _)| *instruction == "COPY")
        .filter_map(|(_, rest)| rest.strip_prefix("--from=build /src/target/release/"))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    let programs = [ctl::cli::definition(), keeper::cli::definition(), monitor::cli::definition()];
    let programs: BTreeSet<_> = programs.iter().map(clap::Command::get_name).collect();
    ensure!(copied == programs, "{copied:?}");
    // PostgreSQL's own image is stopped by SIGINT, which does not hand over.
    ensure!(lines.contains(&("STOPSIGNAL", "SIGTERM")), "{lines:?}");
    Ok(())
}

/// The examples of hooks.
fn hooks() -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(file("deploy/hooks"))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    ensure!(paths.len() == 3, "{paths:?}");
    Ok(paths)
}

/// Runs a script; what it says.
fn sh(script: &str) -> Result<String> {
    let output = command("sh".as_ref()).args(["-c", script]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}: {said}{complained}");
    Ok(said)
}

#[test]
fn examples_of_hooks_are_posix_shell() -> Result<()> {
    for path in hooks()? {
        sh(&format!("sh -n {0} && test -x {0}", path.display()))?;
    }
    Ok(())
}

#[test]
fn the_name_leads_to_the_node() -> Result<()> {
    let update = |host: &str| {
        sh(&format!(
            "DNS_NAME=primary.example DNS_SERVER=10.0.0.53 NSUPDATE=cat PGTANDEM_EVENT=post_promote \
             PGTANDEM_HOST={host} {}",
            file("deploy/hooks/dns").display()
        ))
    };
    for (host, line) in [
        ("10.0.0.7", "update add primary.example. 5 A 10.0.0.7"),
        ("fd00::7", "update add primary.example. 5 AAAA fd00::7"),
        ("node7.example", "update add primary.example. 5 CNAME node7.example."),
    ] {
        let sent = update(host)?;
        ensure!(sent.contains(line) && sent.ends_with("send\n"), "{sent}");
    }
    Ok(())
}

/// In a network of its own: the address is there once, and gone once, however often the hook is run.
#[test]
fn the_virtual_address_is_where_the_primary_is() -> Result<()> {
    let vip = file("deploy/hooks/vip");
    let run = |event: &str, role: &str| {
        format!("PGTANDEM_EVENT={event} PGTANDEM_ROLE_NOW={role} {}", vip.display())
    };
    let count = "ip -o addr show dev vip0 | grep -c 10.99.0.100/24 || true";
    let steps = [
        run("post_promote", "primary"),
        run("on_role_change", "primary"),
        count.to_owned(),
        // Told late: it is not the primary any more.
        run("post_promote", "standby"),
        run("on_fence", "none"),
        count.to_owned(),
        run("on_role_change", "primary"),
        run("pre_demote", "primary"),
        count.to_owned(),
    ];
    let script = format!(
        "export VIP=10.99.0.100/24 VIP_DEVICE=vip0; ip link add vip0 type veth peer name other && ip link set other up && ip link set vip0 up && {}",
        steps.join(" && ")
    );
    let said = sh(&format!("unshare --net sh -ec '{script}'"))?;
    let counts: Vec<_> = said.lines().filter(|line| line.len() == 1).collect();
    ensure!(counts == ["1", "0", "0"], "{said}");
    Ok(())
}
