//! Values, as PostgreSQL's guc.c reads them: `parse_bool`, `parse_int`, `parse_real`, the units, and
//! the ranges of `pg_settings`.

use shared::pgsettings::Known;

/// What kind of value a setting has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Integer,
    Real,
    Enum,
    /// Or of a kind that we do not know: text that the server has to judge.
    Text,
}

impl Kind {
    fn of(known: &Known) -> Self {
        match known.vartype.as_str() {
            "bool" => Self::Bool,
            "integer" => Self::Integer,
            "real" => Self::Real,
            "enum" => Self::Enum,
            _ => Self::Text,
        }
    }
}

/// Whether a value is one that the setting takes; else what is wrong and what is allowed.
pub(super) fn check_value(known: &Known, value: &str) -> Result<(), String> {
    match Kind::of(known) {
        Kind::Bool if is_bool(value) => Ok(()),
        Kind::Bool => Err(format!("'{value}' is not allowed: on or off")),
        Kind::Enum if known.enumvals.iter().any(|it| it.eq_ignore_ascii_case(value.trim())) => {
            Ok(())
        }
        Kind::Enum => {
            Err(format!("'{value}' is not allowed: one of {}", known.enumvals.join(", ")))
        }
        Kind::Integer | Kind::Real => match number(known, value) {
            Some(given) => in_range(known, value, given),
            None => Err(format!("'{value}' is not {}", wanted(known))),
        },
        Kind::Text => Ok(()),
    }
}

/// What is kept of a value. In a text, blanks at the end may be meant, as in `log_line_prefix`.
pub(super) fn kept<'a>(known: &Known, value: &'a str) -> &'a str {
    match Kind::of(known) {
        Kind::Text => value,
        Kind::Bool | Kind::Integer | Kind::Real | Kind::Enum => value.trim(),
    }
}

/// The number that a text stands for, in the unit of the setting.
pub(super) fn number(known: &Known, value: &str) -> Option<f64> {
    let (number, rest) = split_number(value.trim(), Kind::of(known))?;
    let unit = rest.trim();
    let in_base = if unit.is_empty() {
        number
    } else {
        let (base, kind) = base_unit(known.unit.as_deref()?)?;
        let (factor, given) = unit_of(unit)?;
        if given != kind {
            return None;
        }
        number * factor / base
    };
    Some(if Kind::of(known) == Kind::Integer { in_base.round_ties_even() } else { in_base })
}

fn in_range(known: &Known, value: &str, given: f64) -> Result<(), String> {
    let bound = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<f64>().ok());
    let low = bound(&known.min_val).is_some_and(|least| given < least);
    let high = bound(&known.max_val).is_some_and(|most| given > most);
    if low || high || !given.is_finite() {
        return Err(format!("'{value}' is out of range: {}", range(known)));
    }
    Ok(())
}

fn wanted(known: &Known) -> String {
    let kind = if Kind::of(known) == Kind::Integer { "a whole number" } else { "a number" };
    let units = match known.unit.as_deref().and_then(base_unit) {
        Some((_, Measure::Memory)) => ", alone or with B, kB, MB, GB or TB",
        Some((_, Measure::Time)) => ", alone or with us, ms, s, min, h or d",
        None => "",
    };
    format!("{kind}{units}: {}", range(known))
}

/// Such as "from 64kB to 2147483647kB".
fn range(known: &Known) -> String {
    let unit = known.unit.as_deref().unwrap_or_default();
    let in_unit = |bound: &Option<String>| {
        let bound = bound.as_deref().unwrap_or("?");
        // A unit such as 8kB counts: 16 of them.
        if unit.starts_with(|c: char| c.is_ascii_digit()) {
            format!("{bound} x {unit}")
        } else {
            format!("{bound}{unit}")
        }
    };
    format!("from {} to {}", in_unit(&known.min_val), in_unit(&known.max_val))
}

/// `parse_bool`: any beginning of a word that is the beginning of one word only.
fn is_bool(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    let begins = |word: &str| !value.is_empty() && word.starts_with(&value);
    ["true", "false", "yes", "no"].into_iter().any(begins)
        || ["on", "of", "off", "1", "0"].contains(&value.as_str())
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Memory,
    Time,
}

/// How many bytes, or microseconds.
fn unit_of(unit: &str) -> Option<(f64, Measure)> {
    const KILO: f64 = 1024.0;
    const SECOND: f64 = 1_000_000.0;
    Some(match unit {
        "B" => (1.0, Measure::Memory),
        "kB" => (KILO, Measure::Memory),
        "MB" => (KILO * KILO, Measure::Memory),
        "GB" => (KILO * KILO * KILO, Measure::Memory),
        "TB" => (KILO * KILO * KILO * KILO, Measure::Memory),
        "us" => (1.0, Measure::Time),
        "ms" => (1000.0, Measure::Time),
        "s" => (SECOND, Measure::Time),
        "min" => (SECOND * 60.0, Measure::Time),
        "h" => (SECOND * 3600.0, Measure::Time),
        "d" => (SECOND * 86_400.0, Measure::Time),
        _ => return None,
    })
}

/// The same of a setting's own unit, which may have a number before it.
fn base_unit(unit: &str) -> Option<(f64, Measure)> {
    let digits = unit.find(|c: char| !c.is_ascii_digit()).unwrap_or(unit.len());
    let (count, unit) = unit.split_at(digits);
    let (factor, measure) = unit_of(unit)?;
    let count: f64 = if count.is_empty() { 1.0 } else { count.parse().ok()? };
    Some((count * factor, measure))
}

/// The number at the beginning, and the rest: decimal, `0x` hexadecimal or, where it is to be whole, octal
/// with a leading 0.
fn split_number(text: &str, kind: Kind) -> Option<(f64, &str)> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let prefixed = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"));
    if let Some(digits) = prefixed {
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        let (digits, rest) = digits.split_at(end);
        return Some((sign * integer(digits, 16)?, rest));
    }
    let (number, rest) = unsigned.split_at(decimal_length(unsigned));
    let is_octal = kind == Kind::Integer
        && number.len() > 1
        && number.starts_with('0')
        && number.chars().all(|c| c.is_ascii_digit());
    let value = if is_octal { integer(number, 8)? } else { number.parse().ok()? };
    Some((sign * value, rest))
}

fn integer(digits: &str, radix: u32) -> Option<f64> {
    let value = u32::from_str_radix(digits, radix).ok()?;
    Some(f64::from(value))
}

/// How much of it is a decimal number, an exponent included where it is whole.
fn decimal_length(text: &str) -> usize {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        from + rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())
    };
    let starts =
        |from: usize, chars: &[char]| text.get(from..).is_some_and(|rest| rest.starts_with(chars));
    let mut end = digits(0);
    if starts(end, &['.']) {
        end = digits(end + 1);
    }
    if starts(end, &['e', 'E']) {
        let sign = usize::from(starts(end + 1, &['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known(vartype: &str, unit: Option<&str>, min: &str, max: &str) -> Known {
        Known {
            vartype: vartype.to_owned(),
            unit: unit.map(str::to_owned),
            min_val: Some(min.to_owned()),
            max_val: Some(max.to_owned()),
            enumvals: Vec::new(),
            context: "user".to_owned(),
        }
    }

    fn work_mem() -> Known {
        known("integer", Some("kB"), "64", "2147483647")
    }

    #[test]
    fn units_are_those_of_postgres() {
        let shared_buffers = known("integer", Some("8kB"), "16", "1073741823");
        let timeout = known("integer", Some("ms"), "0", "2147483647");
        let naptime = known("integer", Some("s"), "1", "2147483");
        let delay = known("real", Some("ms"), "-1", "100");
        for (known, text, expected) in [
            (&work_mem(), "4MB", Some(4096.0)),
            (&work_mem(), "  64 kB ", Some(64.0)),
            (&work_mem(), "1GB", Some(1_048_576.0)),
            (&work_mem(), "65536B", Some(64.0)),
            (&work_mem(), "0x40", Some(64.0)),
            (&work_mem(), "0100", Some(64.0)),
            (&work_mem(), "1.5MB", Some(1536.0)),
            (&work_mem(), "1e3", Some(1000.0)),
            (&work_mem(), "4mb", None),
            (&work_mem(), "4 s", None),
            (&work_mem(), "four", None),
            (&work_mem(), "", None),
            (&shared_buffers, "128MB", Some(16384.0)),
            (&shared_buffers, "16384", Some(16384.0)),
            (&timeout, "5min", Some(300_000.0)),
            (&timeout, "1d", Some(86_400_000.0)),
            (&timeout, "1500us", Some(2.0)),
            (&naptime, "2h", Some(7200.0)),
            (&naptime, "900ms", Some(1.0)),
            (&delay, "2.5", Some(2.5)),
            (&delay, "010", Some(10.0)),
            (&delay, "500us", Some(0.5)),
        ] {
            assert_eq!(number(known, text), expected, "{text:?}");
        }
        let plain = known("integer", None, "1", "262143");
        assert_eq!((number(&plain, "100"), number(&plain, "100kB")), (Some(100.0), None));
    }

    #[test]
    fn refusals_say_what_is_allowed() {
        let mut level = known("enum", None, "", "");
        level.enumvals = ["replica", "logical"].map(str::to_owned).to_vec();
        let buffers = known("integer", Some("8kB"), "16", "1073741823");
        for (known, value, expected) in [
            (&work_mem(), "1kB", "'1kB' is out of range: from 64kB to 2147483647kB"),
            (
                &work_mem(),
                "much",
                "'much' is not a whole number, alone or with B, kB, MB, GB or TB: from 64kB to 2147483647kB",
            ),
            (&buffers, "8kB", "'8kB' is out of range: from 16 x 8kB to 1073741823 x 8kB"),
            (&level, "all", "'all' is not allowed: one of replica, logical"),
            (&known("bool", None, "", ""), "o", "'o' is not allowed: on or off"),
        ] {
            assert_eq!(check_value(known, value).unwrap_err(), expected);
        }
        assert_eq!(check_value(&level, " Replica "), Ok(()));
        for value in ["on", "OFF", "t", "fal", "yes", "n", "1", "0"] {
            assert_eq!(check_value(&known("bool", None, "", ""), value), Ok(()), "{value}");
        }
    }

    proptest! {
        /// No text, however strange, is anything but taken or refused; and what is taken is in range.
        #[test]
        fn any_text_is_judged(text: String, unit in prop::option::of("[kMGT]?B|us|ms|s|min|h|d|[a-z]{0,3}")) {
            for base in [None, Some("kB"), Some("8kB"), Some("ms"), Some("strange")] {
                let known = known("integer", base, "64", "1000");
                let text = format!("{text}{}", unit.as_deref().unwrap_or_default());
                if check_value(&known, &text).is_ok() {
                    prop_assert!((64.0..=1000.0).contains(&number(&known, &text).unwrap()));
                }
            }
        }

        /// A number in any unit of its kind means the same amount.
        #[test]
        fn units_agree(count in 64_u32..1_000_000) {
            let known = work_mem();
            let given = |text: String| number(&known, &text);
            let bytes = u64::from(count) * 1024;
            prop_assert_eq!(given(format!("{count}kB")), given(format!("{count}")));
            prop_assert_eq!(given(format!("{bytes}B")), given(format!("{count}")));
            prop_assert_eq!(given(format!("{count}MB")), given(format!("{bytes}")));
        }
    }
}
