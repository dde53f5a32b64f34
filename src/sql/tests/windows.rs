//! Windows, in bounded plans and in streams.

use super::*;

const BIDS: &str = "CREATE VIEW bid AS SELECT item, price, CAST(t AS TIMESTAMP(3)) AS ts FROM (VALUES
    ('A', 4, '2020-04-15 08:05:00'), ('A', 2, '2020-04-15 08:07:00'), ('B', 5, '2020-04-15 08:09:00'),
    ('A', 3, '2020-04-15 08:11:00'), ('B', 1, '2020-04-15 08:13:00'), ('A', 6, '2020-04-15 08:17:00')) AS v (item, price, t);";

fn check_bids(query: &str, expected: &[&str]) {
    check_both(&format!("{BIDS}{query}"), expected);
}

#[test]
fn tumbling() {
    check_bids(
        "SELECT window_start, window_end, SUM(price) FROM
         TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' MINUTES)) GROUP BY window_start, window_end",
        &["2020-04-15T08:00:00|2020-04-15T08:10:00|11", "2020-04-15T08:10:00|2020-04-15T08:20:00|10"],
    );
    check_bids(
        "SELECT price, window_time FROM TUMBLE(TABLE bid, DESCRIPTOR(TS), INTERVAL '10' MINUTES) AS w WHERE w.item = 'B'",
        &["5|2020-04-15T08:09:59.999", "1|2020-04-15T08:19:59.999"],
    );
}

#[test]
fn hopping_and_cumulating() {
    check_bids(
        "SELECT window_end, COUNT(*) FROM TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '5' MINUTES, INTERVAL '10' MINUTES))
         GROUP BY window_start, window_end",
        &["2020-04-15T08:10:00|3", "2020-04-15T08:15:00|5", "2020-04-15T08:20:00|3", "2020-04-15T08:25:00|1"],
    );
    check_bids(
        "SELECT window_end, COUNT(*) FROM
         TABLE(CUMULATE(TABLE bid, DESCRIPTOR(ts), INTERVAL '5' MINUTES, INTERVAL '10' MINUTES)) GROUP BY window_start, window_end",
        &["2020-04-15T08:10:00|3", "2020-04-15T08:15:00|2", "2020-04-15T08:20:00|3"],
    );
}

#[test]
fn sessions() {
    // Rows exactly the gap apart are one session.
    check_bids(
        "SELECT item, window_start, window_end, window_time, COUNT(*) FROM
         TABLE(SESSION(TABLE bid PARTITION BY item, DESCRIPTOR(ts), INTERVAL '4' MINUTES))
         GROUP BY item, window_start, window_end, window_time",
        &[
            "A|2020-04-15T08:05:00|2020-04-15T08:15:00|2020-04-15T08:14:59.999|3",
            "A|2020-04-15T08:17:00|2020-04-15T08:21:00|2020-04-15T08:20:59.999|1",
            "B|2020-04-15T08:09:00|2020-04-15T08:17:00|2020-04-15T08:16:59.999|2",
        ],
    );
}

#[test]
fn group_windows() {
    check_bids(
        "SELECT TUMBLE_START(ts, INTERVAL '10' MINUTE) AS s, TUMBLE_END(ts, INTERVAL '600' SECOND),
                TUMBLE_ROWTIME(ts, INTERVAL '10' MINUTE), item, SUM(price) AS total
         FROM bid GROUP BY TUMBLE(ts, INTERVAL '10' MINUTE), item HAVING SUM(price) > 5 ORDER BY s",
        &[
            "2020-04-15T08:00:00|2020-04-15T08:10:00|2020-04-15T08:09:59.999|A|6",
            "2020-04-15T08:10:00|2020-04-15T08:20:00|2020-04-15T08:19:59.999|A|9",
        ],
    );
    check_bids(
        "SELECT HOP_START(ts, INTERVAL '5' MINUTE, INTERVAL '10' MINUTE), MAX(price) FROM bid
         GROUP BY HOP(ts, INTERVAL '5' MINUTE, INTERVAL '10' MINUTE)",
        &["2020-04-15T08:00:00|5", "2020-04-15T08:05:00|5", "2020-04-15T08:10:00|6", "2020-04-15T08:15:00|6"],
    );
    check_bids(
        "SELECT lower(item), SESSION_START(ts, INTERVAL '4' MINUTE), SESSION_END(ts, INTERVAL '4' MINUTE), COUNT(*) FROM bid
         WHERE item = 'A' GROUP BY SESSION(ts, INTERVAL '4' MINUTE), lower(item)",
        &["a|2020-04-15T08:05:00|2020-04-15T08:15:00|3", "a|2020-04-15T08:17:00|2020-04-15T08:21:00|1"],
    );
    check_bids("SELECT COUNT(*) FROM bid GROUP BY TUMBLE(ts, INTERVAL '1' DAY)", &["6"]);
}

#[test]
fn windows_follow_windows() {
    check_bids(
        "SELECT window_start, window_end, SUM(c) FROM TABLE(TUMBLE(
           TABLE (SELECT window_time AS rowtime, COUNT(*) AS c FROM
             TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '5' MINUTES)) GROUP BY window_start, window_end, window_time),
           DESCRIPTOR(rowtime), INTERVAL '10' MINUTES)) GROUP BY window_start, window_end",
        &["2020-04-15T08:00:00|2020-04-15T08:10:00|3", "2020-04-15T08:10:00|2020-04-15T08:20:00|3"],
    );
}

#[test]
fn zones_and_daylight_saving() {
    // The day on which clocks go forward has 23 hours, and still is one day.
    let script = "SET 'table.local-time-zone' = 'Europe/Berlin';
        CREATE VIEW v AS SELECT TO_TIMESTAMP_LTZ(n, 0) AS ts FROM (VALUES (1774738800), (1774821599), (1774821600)) AS v (n);
        SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' DAY)) GROUP BY window_start";
    check_both(script, &["2026-03-29T00:00:00|2", "2026-03-30T00:00:00|1"]);
}

#[test]
fn wrong_windows() {
    let in_window = |call: &str| format!("{BIDS}SELECT * FROM TABLE({call})");
    check_error(
        &in_window("TUMBLE(TABLE bid, DESCRIPTOR(price), INTERVAL '1' DAY)"),
        "column 'price' is BIGINT, not a time; a time attribute is a TIMESTAMP(p) or TIMESTAMP_LTZ(p) column",
    );
    check_error(
        &in_window("TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MONTH)"),
        "the size of TUMBLE is 1 mons, not an interval of days or less; write INTERVAL '10' MINUTE",
    );
    check_error(
        &in_window("TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '-1' MINUTE)"),
        "the size of TUMBLE is -1 mins, not a length; write INTERVAL '10' MINUTE",
    );
    check_error(
        &in_window("CUMULATE(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' MINUTE, INTERVAL '5' MINUTE)"),
        "step 120000 of CUMULATE does not divide its size 300000; the size must be a whole multiple of the step",
    );
    check_error(
        &format!("{BIDS}SELECT TUMBLE_START(ts, INTERVAL '1' DAY) FROM bid"),
        "TUMBLE_START without its window at line 3, column 133; the query must be grouped by TUMBLE with the same arguments",
    );
}

#[test]
fn windows_by_the_second_are_no_burden() {
    // Each row is in 28,800 windows; few of them hold more than one.
    check_bids(
        "SELECT COUNT(*), MAX(n), SUM(n) FROM (SELECT window_end, COUNT(*) AS n FROM
         TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '8' HOUR)) GROUP BY window_start, window_end)",
        &["29520|6|172800"],
    );
}

#[test]
fn sessions_count_distinct_values() {
    check_bids(
        "SELECT item, COUNT(DISTINCT price % 2), COUNT(*) FROM
         TABLE(SESSION(TABLE bid PARTITION BY item, DESCRIPTOR(ts), INTERVAL '4' MINUTES))
         GROUP BY item, window_start, window_end",
        &["A|2|3", "A|1|1", "B|1|2"],
    );
}
