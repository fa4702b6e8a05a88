//! Arguments: those that cannot be used, and that each can be given in three ways.

use clap::Command;

/// What is wrong with them in one line, without the usage.
pub fn wrong(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Options that belong to one call, not to a program's configuration.
const OF_A_CALL: [&str; 4] = ["help", "version", "json", "adopt"];

/// What of a program's configuration is not to be had alike as flag, as variable and as a key of the file, for
/// the program's tests: the faults, one for each option of the command. `in_file` says whether the file takes
/// a line.
pub fn unlike(program: &Command, command: &str, in_file: impl Fn(&str) -> bool) -> Vec<String> {
    let own = program.find_subcommand(command).into_iter().flat_map(Command::get_arguments);
    let names = own.chain(program.get_arguments()).filter_map(|option| {
        let name = option.get_long().filter(|name| !OF_A_CALL.contains(name))?;
        let variable = format!("PGTANDEM_{}", name.replace('-', "_").to_uppercase());
        let varies = option.get_env().is_none_or(|given| given != variable.as_str());
        // Whatever its type is, one of these is a value of it.
        let values = ["'manage'", "'1s'", "'json'", "1", "true"];
        let lacks = name != "config" && !values.iter().any(|it| in_file(&format!("{name} = {it}")));
        match (varies, lacks) {
            (false, false) => None,
            (true, _) => Some(format!("--{name} has no variable {variable}")),
            (false, true) => Some(format!("the file takes no {name}")),
        }
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn what_can_be_given_in_one_way_only_is_found() {
        let option = |name: &'static str| Arg::new(name).long(name);
        let run = Command::new("run")
            .arg(option("data-dir").env("PGTANDEM_DATA_DIR"))
            .arg(option("port").env("PGTANDEM_PORT"))
            .arg(option("host").env("HOST"));
        let program = Command::new("pgx").arg(option("json")).subcommand(run);
        let faults = unlike(&program, "run", |line| line == "data-dir = '1s'");
        assert_eq!(faults, ["the file takes no port", "--host has no variable PGTANDEM_HOST"]);
    }

    #[test]
    fn one_line_says_it() {
        let role = Arg::new("role").long("role").value_parser(["primary", "standby"]);
        let error = Command::new("uri").arg(role).try_get_matches_from(["uri", "--role", "none"]);
        let expected =
            "invalid value 'none' for '--role <role>' [possible values: primary, standby]";
        assert_eq!(wrong(&error.unwrap_err()), expected);
    }
}
