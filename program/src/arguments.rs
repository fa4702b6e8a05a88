//! Arguments that cannot be used.

/// What is wrong with them in one line, without the usage.
pub fn wrong(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::wrong;
    use clap::{Arg, Command};

    #[test]
    fn one_line_says_it() {
        let role = Arg::new("role").long("role").value_parser(["primary", "standby"]);
        let error = Command::new("uri").arg(role).try_get_matches_from(["uri", "--role", "none"]);
        let expected =
            "invalid value 'none' for '--role <role>' [possible values: primary, standby]";
        assert_eq!(wrong(&error.unwrap_err()), expected);
    }
}
