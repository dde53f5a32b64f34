"""One pass over TPC-H in another engine: peers.py duckdb|polars THREADS FOLDER QUERY…

Prints a line "QUERY SECONDS" for each query, "QUERY -" where the engine cannot answer it (and why on standard error).
"""

import os
import sys
import time
from pathlib import Path

TEXTS = Path(__file__).resolve().parents[2] / "tests" / "tpch"


def duckdb(threads, folder):
    """DuckDB over views of the files."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    for file in sorted(folder.glob("*.parquet")):
        connection.execute(f"CREATE VIEW {file.stem} AS SELECT * FROM read_parquet('{file}')")
    return lambda text: connection.sql(text).to_arrow_table()


def polars(threads, folder):
    """Polars' SQL in its streaming engine."""
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars

    tables = polars.SQLContext({file.stem: polars.scan_parquet(file) for file in folder.glob("*.parquet")})
    return lambda text: tables.execute(text, eager=False).collect(engine="streaming")


def text_of(query):
    """The text of a query."""
    return (TEXTS / f"q{query}.sql").read_text()


def main(engine, threads, folder, *queries):
    answer = {"duckdb": duckdb, "polars": polars}[engine](int(threads), Path(folder))
    for query in queries:
        text = text_of(query)
        begin = time.perf_counter()
        try:
            answer(text)
            print(query, time.perf_counter() - begin, flush=True)
        # A panic of Polars is no Exception.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            print(f"{engine} cannot answer q{query}: {str(error).splitlines()[:1]}", file=sys.stderr)
            print(query, "-", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
