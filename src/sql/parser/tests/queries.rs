//! Queries: what DataFusion takes still parses, and what Flink adds becomes nodes that sqlparser has.

use datafusion::sql::parser::DFParserBuilder;
use datafusion::sql::sqlparser::ast::{SetExpr, TableFactor, visit_relations};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use std::ops::ControlFlow;

use super::*;

/// The first relation of a query's `FROM`.
fn factor(sql: &str) -> TableFactor {
    let Statement::Query(query) = one(sql) else { panic!("{sql}") };
    let SetExpr::Select(select) = *query.body else { panic!("{sql}") };
    select.from.into_iter().next().map(|from| from.relation).unwrap_or_else(|| panic!("{sql}"))
}

/// A window table function in one line, or its error.
fn window(call: &str) -> String {
    let tvf = match window_tvf(&factor(&format!("SELECT * FROM {call}"))) {
        None => return "none".to_owned(),
        Some(Err(error)) => return format!("error: {error}"),
        Some(Ok(tvf)) => tvf,
    };
    let kind = match &tvf.kind {
        WindowKind::Tumble { size } => format!("tumble {size}"),
        WindowKind::Hop { slide, size } => format!("hop {slide}, {size}"),
        WindowKind::Cumulate { step, size } => format!("cumulate {step}, {size}"),
        WindowKind::Session { gap } => format!("session {gap}"),
    };
    let input = match &tvf.input {
        WindowInput::Table(name) => format!("table {name}"),
        WindowInput::Query(query) => format!("query {query}"),
    };
    let by: Vec<String> = tvf.partition_by.iter().map(ToString::to_string).collect();
    let offset = tvf.offset.iter().map(|offset| format!(" offset {offset}")).collect::<String>();
    format!("{kind} of {input} by [{}] over {}{offset}", by.join(", "), tvf.time_column.value)
}

#[test]
fn window_functions() {
    for (call, expected) in [
        (
            "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' MINUTES))",
            "tumble INTERVAL '10' MINUTES of table bid by [] over ts",
        ),
        (
            "TABLE(tumble(TABLE db.bid, DESCRIPTOR(`ts`), INTERVAL '10' MINUTE, INTERVAL '1' MINUTE)) AS w",
            "tumble INTERVAL '10' MINUTE of table db.bid by [] over ts offset INTERVAL '1' MINUTE",
        ),
        (
            "TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '5' MINUTES, INTERVAL '10' MINUTES))",
            "hop INTERVAL '5' MINUTES, INTERVAL '10' MINUTES of table bid by [] over ts",
        ),
        (
            "TABLE(CUMULATE(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' MINUTES, INTERVAL '10' MINUTES))",
            "cumulate INTERVAL '2' MINUTES, INTERVAL '10' MINUTES of table bid by [] over ts",
        ),
        (
            "TABLE(SESSION(TABLE bid PARTITION BY item, DESCRIPTOR(ts), INTERVAL '5' MINUTES))",
            "session INTERVAL '5' MINUTES of table bid by [item] over ts",
        ),
        (
            "TABLE(SESSION(TABLE bid PARTITION BY (a, b), DESCRIPTOR(ts), INTERVAL '5' MINUTES))",
            "session INTERVAL '5' MINUTES of table bid by [a, b] over ts",
        ),
        (
            "TABLE(SESSION(TABLE bid PARTITION BY a, b, DESCRIPTOR(ts), INTERVAL '5' MINUTES))",
            "session INTERVAL '5' MINUTES of table bid by [a, b] over ts",
        ),
        (
            "TABLE(SESSION(DATA => TABLE bid PARTITION BY a, b, TIMECOL => DESCRIPTOR(ts), GAP => INTERVAL '5' MINUTES))",
            "session INTERVAL '5' MINUTES of table bid by [a, b] over ts",
        ),
        (
            "TABLE(TUMBLE(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10' MINUTES, OFFSET => INTERVAL '1' MINUTES))",
            "tumble INTERVAL '10' MINUTES of table bid by [] over ts offset INTERVAL '1' MINUTES",
        ),
        (
            "TABLE(HOP(size => INTERVAL '10' MINUTES, data => TABLE bid, slide => INTERVAL '5' MINUTES, timecol => DESCRIPTOR(ts)))",
            "hop INTERVAL '5' MINUTES, INTERVAL '10' MINUTES of table bid by [] over ts",
        ),
        (
            "TABLE(TUMBLE(TABLE (SELECT * FROM bid WHERE price > 1) PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' HOUR))",
            "tumble INTERVAL '1' HOUR of query SELECT * FROM bid WHERE price > 1 by [k] over ts",
        ),
        (
            "TABLE(TUMBLE((SELECT a, ts FROM bid), DESCRIPTOR(ts), INTERVAL '1' HOUR))",
            "tumble INTERVAL '1' HOUR of query SELECT a, ts FROM bid by [] over ts",
        ),
        ("TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' HOUR)", "tumble INTERVAL '1' HOUR of table bid by [] over ts"),
        ("TABLE(UNNEST(x))", "none"),
        ("tumble", "none"),
        (
            "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts)))",
            "error: TUMBLE has no SIZE at line 1, column 21; write TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        ),
        (
            "TABLE(TUMBLE(bid, DESCRIPTOR(ts), INTERVAL '1' HOUR))",
            "error: TUMBLE: the input is not a table at line 1, column 21; write TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        ),
        (
            "TABLE(TUMBLE(TABLE bid, ts, INTERVAL '1' HOUR))",
            "error: TUMBLE: the time column is not DESCRIPTOR of one column at line 1, column 21; write TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        ),
        (
            "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), 1, 2, 3))",
            "error: TUMBLE: 5 arguments are too many at line 1, column 21; write TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        ),
        (
            "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), SLIDE => 1))",
            "error: unknown parameter of TUMBLE 'SLIDE' at line 1, column 55; did you mean 'SIZE'?",
        ),
        (
            "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), 1, SIZE => 1))",
            "error: TUMBLE: SIZE is given twice at line 1, column 21; write TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        ),
    ] {
        assert_eq!(window(call), expected, "\nfor: {call}");
    }
}

#[test]
fn a_window_function_names_its_input_as_a_relation() {
    let sql = "SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' HOUR)) JOIN x ON a = b";
    let Statement::Query(query) = one(sql) else { panic!() };
    let mut relations = Vec::new();
    let _ = visit_relations(&query, |name| {
        relations.push(name.to_string());
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(relations, ["bid", "x"]);
    let tvf = window_tvf(&factor(sql)).unwrap().unwrap();
    assert_eq!(tvf.input.to_relation().unwrap().to_string(), "bid");
}

#[test]
fn expressions() {
    check_all([
        ("SELECT MAP['a', 1, 'b', f(2, 3)]['a'] FROM t", "query SELECT MAP {'a': 1, 'b': f(2, 3)}['a'] FROM t"),
        ("SELECT MAP['a', MAP[1, [2, 3]]]", "query SELECT MAP {'a': MAP {1: [2, 3]}}"),
        ("SELECT map['k'], t.map['k'], map FROM t", "query SELECT map['k'], t.map['k'], map FROM t"),
        (
            "SELECT MAP['a', 1, 'b']",
            "error: a MAP literal has a key without a value at line 1, column 23; write MAP[key, value, …]",
        ),
        (
            "SELECT CAST(x AS ROW<a INT>), CAST(y AS ARRAY<INT>)[1]",
            "query SELECT CAST(x AS ROW<`a` INT>), CAST(y AS ARRAY<INT>)[1]",
        ),
        ("SELECT TRY_CAST(x AS TIMESTAMP(3) WITH LOCAL TIME ZONE)", "query SELECT TRY_CAST(x AS TIMESTAMP_LTZ(3))"),
        ("SELECT \"a b\", `c``d`, 'x' FROM `t`", "query SELECT \"a b\", `c``d`, 'x' FROM `t`"),
        ("SELECT table FROM t WHERE cast > 1", "query SELECT table FROM t WHERE cast > 1"),
        (
            "SELECT * FROM o JOIN r FOR SYSTEM_TIME AS OF o.at AS r ON o.c = r.c",
            "query SELECT * FROM o JOIN r AS r FOR SYSTEM_TIME AS OF o.at ON o.c = r.c",
        ),
        (
            "SELECT TUMBLE_START(ts, INTERVAL '1' HOUR) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), k",
            "query SELECT TUMBLE_START(ts, INTERVAL '1' HOUR) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), k",
        ),
        ("TABLE t", "query TABLE t"),
        ("(SELECT 1) UNION ALL SELECT 2", "query (SELECT 1) UNION ALL SELECT 2"),
        ("SELECT * FROM a, LATERAL TABLE(f(x)) AS t(y)", "query SELECT * FROM a, LATERAL TABLE(f(x)) AS t (y)"),
        ("SELECT /*! 1, */ 2", "query SELECT 2"),
    ]);
}

/// What DataFusion reads, we read as the same tree.
#[test]
fn datafusion_queries_are_unchanged() {
    for sql in [
        "SELECT a, SUM(b) FROM t GROUP BY GROUPING SETS ((a), ())",
        "SELECT a FROM t GROUP BY ROLLUP (a, b), CUBE (c)",
        "SELECT a, ROW_NUMBER() OVER (PARTITION BY b ORDER BY c) AS n FROM t QUALIFY n = 1",
        "FROM t SELECT a",
        "SELECT * EXCLUDE (a) FROM t",
        "SELECT * REPLACE (a + 1 AS a) FROM t",
        "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT 2) SELECT * FROM r",
        "SELECT [1, 2, 3][1], {'a': 1}, MAP {'a': 1}, STRUCT(1, 2)",
        "SELECT x::INT, CAST(x AS DECIMAL(10, 2)), CAST(x AS INT UNSIGNED), CAST(x AS VARCHAR), x::TEXT FROM t",
        "SELECT INTERVAL '1 day', DATE '2020-01-01', TIMESTAMP '2020-01-01 00:00:00'",
        "SELECT COUNT(*) FILTER (WHERE a > 1), FIRST_VALUE(a IGNORE NULLS) OVER w FROM t WINDOW w AS (ORDER BY b)",
        "SELECT * FROM t TABLESAMPLE (10 PERCENT)",
        "SELECT * FROM 'a.parquet' WHERE a ILIKE 'x%' ORDER BY ALL LIMIT 3 OFFSET 1",
        "SELECT * FROM a NATURAL JOIN b LEFT SEMI JOIN c ON a.x = c.x CROSS JOIN LATERAL (SELECT 1)",
        "SELECT * FROM UNNEST([1, 2]) WITH ORDINALITY AS t(a, b)",
        "SELECT EXTRACT(YEAR FROM d), SUBSTRING(s FROM 1 FOR 2), TRIM(BOTH 'x' FROM s), POSITION('a' IN s) FROM t",
        "SELECT a FROM t WHERE b IN (SELECT c FROM u) AND EXISTS (SELECT 1) AND (a, b) = (1, 2)",
        "SELECT * FROM t PIVOT (SUM(a) FOR b IN ('x', 'y'))",
        "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY a ORDER BY b MEASURES LAST(x.c) AS m ONE ROW PER MATCH PATTERN (x y+) DEFINE y AS y.c > 1)",
        "SELECT a FROM t |> WHERE a > 1",
        "VALUES (1, 'a'), (2, 'b')",
    ] {
        let theirs =
            DFParserBuilder::new(sql).with_dialect(&GenericDialect).build().and_then(|mut p| p.parse_statements());
        let theirs = theirs.unwrap_or_else(|error| panic!("{error}\nfor: {sql}")).pop_front().map(|s| s.to_string());
        let Statement::Query(ours) = one(sql) else { panic!("{sql}") };
        assert_eq!(Some(ours.to_string()), theirs, "for: {sql}");
    }
}
