//! Whatever the text is, parsing it ends in statements or in an error: never in a panic.

use proptest::prelude::*;

use super::*;

/// Statements that reach every reader.
const SEEDS: &[&str] = &[
    "CREATE TABLE t (a INT NOT NULL COMMENT 'x', b AS a + 1, c TIMESTAMP_LTZ(3) METADATA FROM 'k' VIRTUAL, \
     d ROW<e ARRAY<MAP<STRING, DECIMAL(10, 2)>>>, WATERMARK FOR c AS c - INTERVAL '5' SECOND, \
     PRIMARY KEY (a) NOT ENFORCED) COMMENT 'y' PARTITIONED BY (a) WITH ('k' = 'v') LIKE s (EXCLUDING ALL);",
    "CREATE OR REPLACE TEMPORARY VIEW IF NOT EXISTS v (a, b) COMMENT 'c' AS SELECT 1, MAP['a', 1]['a'];",
    "SELECT * FROM TABLE(SESSION(DATA => TABLE t PARTITION BY (a, b), TIMECOL => DESCRIPTOR(c), GAP => INTERVAL '1' HOUR)) w;",
    "EXECUTE STATEMENT SET BEGIN INSERT INTO a PARTITION (x = 1) (y) SELECT 1; INSERT OVERWRITE b VALUES (1, 'x'); END;",
    "EXPLAIN CHANGELOG_MODE, ESTIMATED_COST SELECT CAST(x AS ROW<a INT>) FROM t /*+ OPTIONS('a'='b') */ AS s;",
    "SET 'a.b' = 'c'; SET a.b-c = 100 ms; SET; RESET a.b; SHOW COLUMNS FROM t LIKE 'a%'; STOP JOB 'x' WITH DRAIN; HELP;",
    "COPY (SELECT 1) TO 'f.parquet'; DROP TABLE IF EXISTS t; DESCRIBE t; SELECT * FROM a JOIN b FOR SYSTEM_TIME AS OF a.c ON TRUE;",
];

/// Parses, and looks at every place that an error or a statement names.
fn survives(sql: &str) {
    let _ = is_complete(sql);
    match parse_script(sql) {
        Ok(parsed) => {
            for parsed in parsed {
                assert_eq!(&sql[parsed.span.start..parsed.span.end], parsed.text);
                assert_eq!(locate(sql, parsed.span.line, parsed.span.column), parsed.span.start);
                let _ = pointer(sql, parsed.span);
            }
        }
        Err(error) => {
            assert_eq!(error.kind(), tidemill_core::ErrorKind::Request);
            assert!(!error.to_string().contains('\n'), "{error}");
            let span = error_span(sql, &error);
            assert!(span.is_some(), "{error} has no place");
            span.map(|span| pointer(sql, span));
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_text(sql in "\\PC{0,80}") {
        survives(&sql);
    }

    #[test]
    fn arbitrary_words(words in prop::collection::vec(prop::sample::select(vec![
        "CREATE", "TABLE", "VIEW", "SELECT", "INSERT", "INTO", "SET", "BEGIN", "STATEMENT", "END", "EXPLAIN", "AS", "(", ")",
        "<", ">", ">>", "ROW", "ARRAY", "MAP", "[", "]", ",", ";", "a", "'s'", "1", "=", "=>", "CAST", "WATERMARK", "FOR",
        "PRIMARY", "KEY", "NOT", "NULL", "ENFORCED", "METADATA", "FROM", "PARTITION", "BY", "TUMBLE", "DESCRIPTOR", "INT",
        "LIKE", "WITH", "COMMENT", "/*+", "*/", "--", "\n", "é", "`", "\"", ".", "-", "*", "EXECUTE", "SHOW", "COLUMNS",
    ]), 0..24)) {
        survives(&words.join(" "));
    }

    /// A seed with a piece cut out, doubled, or replaced by another seed's piece.
    #[test]
    fn mutated_statements(
        (seed, other) in (prop::sample::select(SEEDS), prop::sample::select(SEEDS)),
        (at, length) in (any::<prop::sample::Index>(), 0_usize..12),
        from in any::<prop::sample::Index>(),
        kind in 0..4,
    ) {
        let start = at.index(seed.len());
        let end = (start + length).min(seed.len());
        let piece = from.index(other.len());
        let piece = &other[piece..(piece + length).min(other.len())];
        let (before, middle, after) = (&seed[..start], &seed[start..end], &seed[end..]);
        survives(&match kind {
            0 => format!("{before}{after}"),
            1 => format!("{before}{middle}{middle}{after}"),
            2 => format!("{before}{piece}{after}"),
            _ => before.to_owned(),
        });
    }
}

#[test]
fn seeds() {
    SEEDS.iter().for_each(|seed| survives(seed));
}

#[test]
fn deep_nesting_is_an_error() {
    for (open, close) in [("(", ")"), ("CAST(", " AS INT)"), ("MAP[1, ", "]"), ("NOT ", ""), ("f(", ")")] {
        survives(&format!("SELECT {}1{}", open.repeat(2000), close.repeat(2000)));
    }
    survives(&format!("{} SELECT 1", "EXPLAIN ".repeat(10_000)));
    survives(&format!("CREATE TABLE t (a {}INT", "ROW(a ".repeat(10_000)));
    survives(&format!("CREATE TABLE t (a INT {})", "ARRAY ".repeat(10_000)));
}
