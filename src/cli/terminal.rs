//! What is known about the terminal: whether there is one, how wide it is, whether it may be coloured.

use std::io::IsTerminal;

/// Whether standard output is a terminal.
pub fn is_stdout() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether standard error is a terminal.
pub fn is_stderr() -> bool {
    std::io::stderr().is_terminal()
}

/// Columns of the terminal that standard output is, now: it may have been resized.
pub fn width() -> Option<usize> {
    comfy_table::Table::new().width().map(usize::from).filter(|width| *width > 0)
}

/// Whether text for a terminal may have colours: not when `NO_COLOR` is set, and not when the terminal knows none.
pub fn may_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// A number with its thousands apart: `12,345,678`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of things: `1 row`, `2,000 rows`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([counted(1, "row"), counted(0, "row")], ["1 row", "0 rows"]);
    }
}
