//! Tables whose rows are in folders by the values of some columns.

use super::*;

fn sales(dir: &Path, more: &str) -> String {
    let path = dir.join("sales").display().to_string();
    format!(
        "CREATE TABLE sales (n BIGINT, day DATE, shop STRING) PARTITIONED BY (day, SHOP)
         WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv'{more});"
    )
}

#[test]
fn partition_columns_are_written_to_folders_and_read_from_them() {
    let dir = tempfile::tempdir().unwrap();
    let success = ", 'sink.partition-commit.policy.kind' = 'success-file'";
    let mut session = session();
    let script = sales(dir.path(), success)
        + "INSERT INTO sales VALUES (1, DATE '2026-11-21', 'a/b'), (2, DATE '2026-11-22', NULL), (3, DATE '2026-11-21', 'a/b');";
    run(&mut session, &script).unwrap();
    assert!(dir.path().join("sales/day=2026-11-21/shop=a%2Fb/_SUCCESS").exists());
    assert!(dir.path().join("sales/day=2026-11-22/shop=__HIVE_DEFAULT_PARTITION__/_SUCCESS").exists());
    let script = "INSERT INTO sales PARTITION (shop = 'x', day = '2026-01-01') SELECT 4;
                  INSERT INTO sales PARTITION (day = DATE '2026-01-02') (shop, n) SELECT 'y', 5;";
    run(&mut session, script).unwrap();
    let rows = |session: &mut Session, query: &str| run(session, query).unwrap();
    assert_eq!(
        rows(&mut session, "SELECT * FROM sales ORDER BY n"),
        "1|2026-11-21|a/b\n2|2026-11-22|NULL\n3|2026-11-21|a/b\n4|2026-01-01|x\n5|2026-01-02|y"
    );
    assert_eq!(
        rows(&mut session, "SELECT shop, COUNT(*) FROM sales WHERE day < DATE '2026-11-22' GROUP BY shop ORDER BY 1"),
        "a/b|2\nx|1\ny|1"
    );
    assert_eq!(rows(&mut session, "SELECT DISTINCT day FROM sales ORDER BY day LIMIT 1"), "2026-01-01");
    run(&mut session, "INSERT OVERWRITE sales PARTITION (day = '2026-11-21', shop = 'a/b') SELECT 7").unwrap();
    assert_eq!(rows(&mut session, "SELECT n FROM sales ORDER BY n"), "2\n4\n5\n7");
    let created = rows(&mut session, "SHOW CREATE TABLE sales");
    assert!(
        created.contains("PARTITIONED BY (day, shop) WITH") || created.contains("PARTITIONED BY (`day`, `shop`) WITH"),
        "{created}"
    );
}

#[test]
fn what_cannot_be_a_partition_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let sales = sales(dir.path(), "");
    for (script, expected) in [
        (
            "CREATE TABLE t (n INT) PARTITIONED BY (m) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'csv')",
            "partition column 'm' not found",
        ),
        (
            "CREATE TABLE t (n INT, m AS n + 1) PARTITIONED BY (m) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'csv')",
            "partition column 'm' is computed",
        ),
        (
            "CREATE TABLE t (n INT, m INT) PARTITIONED BY (m) WITH ('connector' = 'print')",
            "connector 'print' has no partitions",
        ),
        ("INSERT INTO sales PARTITION (n = 1) SELECT DATE '2026-01-01', 'x'", "column 'n' is no partition column"),
        ("INSERT INTO sales PARTITION (shop = 1 + 1) SELECT 1, DATE '2026-01-01'", "'1 + 1' is no constant"),
        (
            "INSERT INTO sales PARTITION (shop = 'x') (shop, n) SELECT 'y', 1",
            "column 'shop' gets its value from PARTITION",
        ),
    ] {
        let error = run(&mut session(), &format!("{sales}{script}")).unwrap_err();
        assert!(error.contains(expected), "{script}: {error}");
    }
}
