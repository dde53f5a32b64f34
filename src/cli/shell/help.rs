//! What `HELP` says.

/// The statements there are, and what the keys do.
pub const HELP: &str = "\
Statements end with ';' and may have several lines.

  SELECT ...                             run a query; FROM 'file.csv' or FROM 'dir/*.parquet' reads files as they are
  EXPLAIN [ANALYZE] SELECT ...           its plan; with ANALYZE also what each task did
  CREATE TABLE t (...) WITH (...)        a table of a connector: filesystem, datagen, socket, print, blackhole
  CREATE VIEW v AS SELECT ...            a named query
  DROP TABLE t, DROP VIEW v
  INSERT INTO t SELECT ...               start a job that writes to t
  COPY (SELECT ...) TO 'file.parquet'    write one file
  SHOW TABLES | VIEWS | FUNCTIONS | JOBS | COLUMNS FROM t | CREATE TABLE t
  DESCRIBE t
  SET 'key' = 'value', SET, RESET 'key'  settings; SET alone lists them all
  CANCEL JOB 'id', STOP JOB 'id'
  HELP, CLEAR, QUIT

How results are shown: SET 'sql-client.execution.result-mode' = 'table' | 'changelog' | 'tableau'
Whether INSERT waits:  SET 'table.dml-sync' = 'true' | 'false'

Keys: Tab completes, Up and Ctrl-R look through the history, Ctrl-C cancels a query or clears the line, Ctrl-D leaves.
";
