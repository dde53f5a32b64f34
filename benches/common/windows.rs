//! Rows into windows: a key drawn uniformly, one microsecond apart, windows of ten seconds; the counts go nowhere.

/// The tables of [`COUNT`]: so many rows, of so many keys.
pub fn tables(rows: u64, keys: u64) -> String {
    let last = keys.saturating_sub(1);
    format!(
        "CREATE TABLE rows (k BIGINT, ts TIMESTAMP(6), WATERMARK FOR ts AS ts) WITH (
           'connector' = 'datagen', 'number-of-rows' = '{rows}', 'seed' = '1',
           'fields.k.kind' = 'random', 'fields.k.min' = '0', 'fields.k.max' = '{last}',
           'fields.ts.kind' = 'sequence', 'fields.ts.start' = '2024-01-01 00:00:00', 'fields.ts.step' = '1 us');
         CREATE TABLE nowhere (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');"
    )
}

/// How many rows each key has in each window.
pub const COUNT: &str = "
INSERT INTO nowhere SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE rows, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY k, window_start, window_end";
