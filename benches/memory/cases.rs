//! The statements that need more memory than they get, and the tables that take their rows.

/// A statement.
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// The declaration of the table `nowhere`.
    pub table: &'static str,
    /// The query whose rows go there.
    pub query: &'static str,
}

/// All of them.
pub const CASES: [Case; 3] = [
    Case {
        name: "group",
        table: "CREATE TABLE nowhere (l_orderkey BIGINT, l_partkey BIGINT, n BIGINT, quantity DECIMAL(25, 2), \
                price DECIMAL(25, 2)) WITH ('connector' = 'blackhole')",
        query: "SELECT l_orderkey, l_partkey, COUNT(*), SUM(l_quantity), SUM(l_extendedprice) FROM lineitem \
                GROUP BY l_orderkey, l_partkey",
    },
    Case {
        name: "sort",
        table: "CREATE TABLE nowhere (l_orderkey BIGINT, l_partkey BIGINT, l_suppkey BIGINT, l_linenumber INT, \
                l_quantity DECIMAL(15, 2), l_extendedprice DECIMAL(15, 2), l_discount DECIMAL(15, 2), l_tax DECIMAL(15, 2), \
                l_returnflag STRING, l_linestatus STRING, l_shipdate DATE, l_commitdate DATE, l_receiptdate DATE, \
                l_shipinstruct STRING, l_shipmode STRING, l_comment STRING) WITH ('connector' = 'blackhole')",
        query: "SELECT * FROM lineitem ORDER BY l_comment",
    },
    Case {
        name: "join",
        table: "CREATE TABLE nowhere (l_orderkey BIGINT, a STRING, b STRING) WITH ('connector' = 'blackhole')",
        query: "SELECT a.l_orderkey, a.l_comment, b.l_comment FROM lineitem AS a JOIN lineitem AS b \
                ON a.l_orderkey = b.l_orderkey",
    },
];
