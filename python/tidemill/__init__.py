"""tidemill: a columnar, vectorized analytics engine in which batch and streaming are the same engine.

    >>> import pyarrow, tidemill
    >>> pyarrow.table(tidemill.sql("select 1 as one")).to_pydict()
    {'one': [1]}

Results meet pyarrow, Polars, DuckDB and everything else that speaks the Arrow PyCapsule interface without a copy.
"""

from tidemill._native import Table, TidemillError, __version__, sql

__all__ = ["Table", "TidemillError", "__version__", "sql"]
