//! Instants read by the clock of `table.local-time-zone`.

use super::*;

/// Four in the morning of the first of July in Greenwich is still June in New York.
const MOMENT: &str = "SET 'table.local-time-zone' = 'America/New_York';
    CREATE VIEW v AS SELECT TO_TIMESTAMP_LTZ(1593576000000 - 600000, 3) AS t;";

fn check_moment(exprs: &str, expected: &str) {
    check_both(&format!("{MOMENT} SELECT {exprs} FROM v"), &[expected]);
}

#[test]
fn an_instant_has_a_date_and_a_clock() {
    check_moment("CAST(t AS DATE), CAST(t AS TIMESTAMP(3))", "2020-06-30|2020-06-30T23:50:00");
    check_moment("EXTRACT(HOUR FROM t), EXTRACT(DAY FROM t)", "23|30");
    check_moment("CAST(t AS STRING)", "2020-06-30T23:50:00-04:00");
    check_moment("TRY_CAST(t AS DATE)", "2020-06-30");
    check_moment("CAST(DATE_TRUNC('day', t) AS STRING)", "2020-06-30T00:00:00-04:00");
    check_moment("TO_CHAR(t, '%d %H:%M'), DATE_FORMAT(t, 'dd HH:mm')", "30 23:50|30 23:50");
}

#[test]
fn text_dates_and_timestamps_become_instants_of_the_zone() {
    check_moment("t = CAST(TIMESTAMP '2020-06-30 23:50:00' AS TIMESTAMP_LTZ(3))", "true");
    check_moment("t = CAST('2020-06-30 23:50:00' AS TIMESTAMP_LTZ(3))", "true");
    check_moment("t = CAST('2020-07-01 03:50:00Z' AS TIMESTAMP_LTZ(3))", "true");
    check_moment("t - CAST(DATE '2020-06-30' AS TIMESTAMP_LTZ(3)) = INTERVAL '1430' MINUTE", "true");
    check_moment("t > '2020-06-30 23:49:00', t < '2020-06-30 23:51:00'", "true|true");
}

#[test]
fn groups_and_filters_use_that_clock_too() {
    let days = "SELECT CAST(t AS DATE) AS d, COUNT(*) FROM v WHERE EXTRACT(HOUR FROM t) = 23 GROUP BY CAST(t AS DATE)";
    check_both(&format!("{MOMENT} {days}"), &["2020-06-30|1"]);
    let within = "SELECT 1 WHERE DATE '2020-06-30' IN (SELECT CAST(t AS DATE) FROM v)";
    check(&format!("{MOMENT} {within}"), &["1"]);
}

#[test]
fn in_greenwich_nothing_changes() {
    let utc = MOMENT.replace("America/New_York", "UTC");
    check_both(&format!("{utc} SELECT CAST(t AS DATE), EXTRACT(HOUR FROM t) FROM v"), &["2020-07-01|3"]);
}

#[test]
fn days_and_months_are_those_of_the_clock() {
    check_moment("CAST(t + INTERVAL '1' MONTH AS STRING)", "2020-07-30T23:50:00-04:00");
    check_moment("CAST(DATE_BIN(INTERVAL '1' DAY, t) AS STRING)", "2020-06-30T00:00:00-04:00");
    let berlin = "SET 'table.local-time-zone' = 'Europe/Berlin';
        CREATE VIEW v AS SELECT CAST('2024-10-26 12:00:00' AS TIMESTAMP_LTZ(3)) AS t;";
    let longer = "CAST(t + INTERVAL '1' DAY AS STRING), CAST(t + INTERVAL '24' HOUR AS STRING)";
    check_both(&format!("{berlin} SELECT {longer} FROM v"), &["2024-10-27T12:00:00+01:00|2024-10-27T11:00:00+01:00"]);
}

#[test]
fn clocks_that_are_put_forward_or_back_stop_nothing() {
    let berlin = "SET 'table.local-time-zone' = 'Europe/Berlin';
        CREATE VIEW v AS SELECT TO_TIMESTAMP_LTZ(s, 0) AS t FROM (VALUES (1729987200), (1729990800)) AS v (s);";
    // 02:00 came twice on that day.
    check_both(
        &format!("{berlin} SELECT CAST(t AS TIMESTAMP(0)), t = CAST(t AS TIMESTAMP(0)) FROM v"),
        &["2024-10-27T02:00:00|false", "2024-10-27T02:00:00|true"],
    );
    check_both(&format!("{berlin} SELECT COUNT(*) FROM v WHERE t >= TIMESTAMP '2024-10-27 02:00:00'"), &["1"]);
    let sao_paulo = "SET 'table.local-time-zone' = 'America/Sao_Paulo';";
    // That day began at one o'clock.
    check_both(
        &format!("{sao_paulo} SELECT CAST(CAST(DATE '2018-11-04' AS TIMESTAMP_LTZ(3)) AS STRING)"),
        &["2018-11-04T01:00:00-02:00"],
    );
}
