"""Compares answers to TPC-H with DuckDB's: answers.py FOLDER ANSWERS QUERY…

ANSWERS holds a file qN.arrow for each query. Prints a line for each that is not what DuckDB answers, and nothing else. Rows are
compared in an order of their own, because ties may come in any; numbers to the digits that both have, floats to nine.
"""

import sys
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.ipc
from peers import duckdb, text_of


def rows_of(table):
    """The rows of an Arrow table, in an order that does not hang on rounding."""
    rows = zip(*(column.to_pylist() for column in table.columns))

    def place(row):
        exact = [str(value) for value in row if not is_fraction(value)]
        return exact, [float(value) for value in row if is_fraction(value)]

    return sorted(rows, key=place)


def is_fraction(value):
    return isinstance(value, float) or digits(value) > 0


def digits(value):
    """Digits behind the point of a decimal number."""
    return -value.as_tuple().exponent if isinstance(value, Decimal) else 0


def is_same(left, right):
    numbers = (int, float, Decimal)
    if not isinstance(left, numbers) or not isinstance(right, numbers):
        return left == right
    if not isinstance(left, float) and not isinstance(right, float) and digits(left) == digits(right):
        return left == right
    # One of them was rounded to the digits that it has.
    last = max((10.0 ** -digits(value) for value in (left, right) if digits(value) > 0), default=0.0)
    return abs(float(left) - float(right)) <= last + 1e-9 * abs(float(left))


def difference(ours, theirs):
    """What is wrong with our table, if anything is."""
    if ours.num_columns != theirs.num_columns:
        return f"{ours.num_columns} columns, DuckDB has {theirs.num_columns}"
    if ours.num_rows != theirs.num_rows:
        return f"{ours.num_rows} rows, DuckDB has {theirs.num_rows}"
    for left, right in zip(rows_of(ours), rows_of(theirs)):
        if not all(map(is_same, left, right)):
            return f"{left}, DuckDB has {right}"
    return None


def main(folder, answers, *queries):
    answer = duckdb(2, Path(folder))
    for query in queries:
        with pyarrow.OSFile(str(Path(answers) / f"q{query}.arrow")) as file:
            ours = pyarrow.ipc.open_file(file).read_all()
        if wrong := difference(ours, answer(text_of(query))):
            print(f"q{query}: {wrong}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
