//! Connectors and options that nobody knows.

use super::super::Folder;
use super::refused;

/// A table with these options, refused at its CREATE.
#[track_caller]
fn check(options: &str, parts: &[&str]) {
    let script = format!("CREATE TABLE t (n BIGINT, s STRING) WITH ({options})");
    refused(&Folder::new().sql(&script), 1, parts);
}

#[test]
fn an_unknown_connector_names_the_nearest_or_all() {
    check("'connector' = 'filesytem'", &["table 't': unknown connector 'filesytem'", "did you mean 'filesystem'?"]);
    check("'connector' = 'data-gen'", &["unknown connector 'data-gen'", "did you mean 'datagen'?"]);
    check("'connector' = 'qqq'", &["unknown connector 'qqq'", "known: filesystem, datagen, socket, print, blackhole"]);
    check("'path' = 'x'", &["the table has no option 'connector'", "known connectors: filesystem"]);
}

#[test]
fn an_unknown_format_names_the_nearest() {
    let table = |format: &str| format!("'connector' = 'filesystem', 'path' = 'x', 'format' = '{format}'");
    check(&table("parqet"), &["unknown format 'parqet'", "did you mean 'parquet'?"]);
    check(&table("orc"), &["unknown format 'orc'", "known: csv, json, raw, parquet, arrow"]);
}

#[test]
fn an_unknown_option_names_the_nearest() {
    for (options, slip, near) in [
        ("'connector' = 'filesystem', 'path' = 'x.csv', 'csv.heder' = 'true'", "csv.heder", "csv.header"),
        (
            "'connector' = 'filesystem', 'path' = 'x.csv', 'source.recursiv' = 'true'",
            "source.recursiv",
            "source.recursive",
        ),
        (
            "'connector' = 'filesystem', 'path' = 'x.json', 'json.ignore-errors' = '1'",
            "json.ignore-errors",
            "json.ignore-parse-errors",
        ),
        (
            "'connector' = 'filesystem', 'path' = 'x.parquet', 'parquet.compresion' = 'x'",
            "parquet.compresion",
            "parquet.compression",
        ),
        // An option that must be there, misspelt, is not a missing one.
        ("'connector' = 'filesystem', 'pth' = 'x.csv'", "pth", "path"),
        ("'connector' = 'datagen', 'row-per-second' = '5'", "row-per-second", "rows-per-second"),
        ("'connector' = 'datagen', 'fields.n.knd' = 'sequence'", "fields.n.knd", "fields.n.kind"),
        ("'connector' = 'socket', 'hostnam' = 'x', 'port' = '1'", "hostnam", "hostname"),
        ("'connector' = 'print', 'standart-error' = 'true'", "standart-error", "standard-error"),
    ] {
        check(options, &[&format!("unknown option '{slip}' of connector"), &format!("did you mean '{near}'?")]);
    }
    let copied = Folder::new().sql("COPY (SELECT 1 AS a) TO 'x.csv' OPTIONS ('csv.heder' 'true')");
    refused(&copied, 1, &["unknown option 'csv.heder'", "did you mean 'csv.header'?"]);
}

#[test]
fn a_missing_option_says_where_it_goes() {
    check("'connector' = 'filesystem'", &["connector 'filesystem' needs option 'path'", "add 'path' = '…' to WITH"]);
    check("'connector' = 'socket', 'hostname' = 'x'", &["connector 'socket' needs option 'port'", "to WITH"]);
}

#[test]
fn a_value_that_an_option_cannot_have_says_what_it_can() {
    check(
        "'connector' = 'print', 'standard-error' = 'maybe'",
        &["'standard-error' is 'maybe'", "expected true or false"],
    );
    check("'connector' = 'datagen', 'number-of-rows' = 'ten'", &["'number-of-rows' is 'ten'", "expected a number"]);
}
