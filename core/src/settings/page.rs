//! The page of settings, made from the table: `UPDATE_EXPECT=1` writes it anew.

use expect_test::expect_file;

use super::keys::{KEYS, Key, Value};

const HEAD: &str = "\
# Settings

`SET 'key' = 'value'` sets one for the statements behind it, `RESET 'key'` takes that back, `SET;` lists them all with their values
and where those came from. Strongest first:

1. `SET` in SQL;
2. `-D key=value` and `-p` on the command line;
3. the environment: `TIDEMILL_` and the key, dots as `__`, dashes as `_`, in any case (`TIDEMILL_EXECUTION__BATCH_ROWS=1`);
4. the file of `--config`, or else `./tidemill.yaml`, or else `$XDG_CONFIG_HOME/tidemill/tidemill.yaml`, flat or nested;
5. the default.

A key that nobody knows is an error that names the nearest one, and so is a value that a setting cannot have. Older names work and
give a warning. Words are read in any case. A duration is `100 ms`, `3 s`, `1 min`, `2 h` or `1 d`, a size `512k`, `64 mb` or `2g`.
`io.tmp.dirs`, the memory and the slots of a worker are read once, when the process starts; setting them later warns.
";

const LATER_HEAD: &str = "
## Accepted, without effect so far

They belong to what is not there yet: more than one process.
";

/// How the keys begin that nothing reads yet.
const LATER: [&str; 3] = ["rest.", "heartbeat.", "high-availability."];

#[test]
fn the_page_is_that_of_the_table() {
    let is_later = |key: &&Key| LATER.iter().any(|start| key.name.starts_with(start));
    let (later, now): (Vec<&Key>, Vec<&Key>) = KEYS.iter().partition(is_later);
    expect_file!["../../../docs/settings.md"].assert_eq(&format!("{HEAD}{}{LATER_HEAD}{}", table(&now), table(&later)));
}

fn table(keys: &[&Key]) -> String {
    let rows: String = keys.iter().map(|key| row(key)).collect();
    format!("\n| key | values | default | what it does |\n| --- | --- | --- | --- |\n{rows}")
}

fn row(key: &Key) -> String {
    let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
    let older: Vec<String> = key.aliases.iter().map(|alias| format!("`{alias}`")).collect();
    let older = if older.is_empty() { String::new() } else { format!("; once {}", older.join(", ")) };
    format!("| `{}` | {} | {default} | {}{older} |\n", key.name, values(key.value), key.meaning)
}

fn values(value: Value) -> String {
    match value {
        Value::Text => "text".to_owned(),
        Value::Boolean => words(&["true", "false"]),
        Value::Number { min, max } => format!("{min} to {max}"),
        Value::Duration => "a duration".to_owned(),
        Value::Pause => "a duration of at least 1 ms".to_owned(),
        Value::Bytes => "a size".to_owned(),
        Value::Fraction => "0 to 1".to_owned(),
        Value::Factor => "1 or more".to_owned(),
        Value::CountOrInfinite => "1 or more, `infinite`".to_owned(),
        Value::Gate => "a duration, `full`, `infinite`".to_owned(),
        Value::RuntimeMode => words(&["automatic", "batch", "streaming"]),
        Value::ShuffleMode => words(&["automatic", "blocking", "pipelined", "hybrid"]),
        Value::TimeZone => "a time zone".to_owned(),
        Value::OneOf(known) => words(known),
    }
}

fn words(known: &[&str]) -> String {
    known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
