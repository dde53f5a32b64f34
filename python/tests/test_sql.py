"""What a notebook relies on: rows reach every library that reads Arrow, errors say what to do, and the module is as typed."""

import ast
import importlib.metadata
import threading
import time
from pathlib import Path

import duckdb
import polars
import pyarrow
import pytest

import tidemill
from tidemill import _native


def test_version_is_the_packages():
    assert tidemill.__version__ == importlib.metadata.version("tidemill")


def test_rows_reach_pyarrow():
    rows = tidemill.sql("select 1 as one, 'a' as letter")
    assert pyarrow.table(rows).to_pydict() == {"one": [1], "letter": ["a"]}


def test_rows_reach_polars():
    assert polars.DataFrame(tidemill.sql("select 1 as one")).rows() == [(1,)]


def test_rows_reach_duckdb():
    rows = tidemill.sql("select 1 as one")  # DuckDB finds it by its name
    assert duckdb.sql("select one + 1 from rows").fetchall() == [(2,)]


def test_rows_can_be_read_again():
    rows = tidemill.sql("select 1 as one")
    assert pyarrow.table(rows) == pyarrow.table(rows)


def test_no_rows_still_have_columns():
    rows = tidemill.sql("select 1 as one where false")
    assert (len(rows), rows.column_names) == (0, ["one"])
    assert pyarrow.table(rows).schema == pyarrow.schema(rows)
    assert repr(rows) == "<tidemill.Table: 0 rows of one>"


def test_an_asked_for_schema_is_met():
    rows = tidemill.sql("select 1 as one")
    narrow = pyarrow.schema([pyarrow.field("one", pyarrow.int8())])
    assert pyarrow.table(rows, schema=narrow).schema.field("one").type == pyarrow.int8()


def test_the_state_of_jobs_is_a_table(tmp_path):
    with pytest.raises(tidemill.TidemillError, match="neither a savepoint nor a complete checkpoint"):
        tidemill.sql(f"select * from read_checkpoint('{tmp_path}', operator => 'sums')")


def test_an_error_says_what_to_do():
    with pytest.raises(tidemill.TidemillError, match="wat") as error:
        tidemill.sql("select 1 as one from wat")
    assert error.value.kind == "request"
    assert error.value.hint is None or error.value.hint != ""


def test_other_threads_go_on():
    """A module that kept the interpreter's lock would let the loop turn once at most before the query is done."""
    query = "select count(*) from generate_series(1, 5000) as a, generate_series(1, 5000) as b where a.value < b.value"
    worker = threading.Thread(target=tidemill.sql, args=(query,))
    turns = 0
    worker.start()
    while worker.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 5


def test_the_stub_names_what_is_there():
    stub = ast.parse((Path(tidemill.__file__).parent / "_native.pyi").read_text())
    classes = [node for node in stub.body if isinstance(node, ast.ClassDef)]
    functions = [node for node in stub.body if isinstance(node, ast.FunctionDef)]
    names = {node.name for node in classes + functions} | {"__version__"}
    assert names == set(tidemill.__all__) == set(_native.__all__)
    members = {node.name for node in classes[0].body if isinstance(node, ast.FunctionDef)}
    assert members <= set(dir(tidemill.Table))
