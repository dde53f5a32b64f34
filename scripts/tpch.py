"""Writes the eight tables of TPC-H as Parquet, one file each: tpch.py SCALE_FACTOR FOLDER

The folder appears whole or not at all and remembers its scale factor; one of the same scale factor is left alone.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

REMEMBERED = ".scale-factor"


def main(scale_factor: str, folder: Path) -> None:
    if folder.exists():
        there = folder / REMEMBERED
        found = there.read_text().strip() if there.exists() else "unknown"
        if found != scale_factor:
            sys.exit(f"tpch.py: {folder} holds scale factor {found}, not {scale_factor}; name another folder")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    generator = Path(sys.executable).with_name("tpchgen-cli")
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        subprocess.run([generator, "parquet", "--quiet", "-s", scale_factor, "-o", made], check=True)
        (made / REMEMBERED).write_text(scale_factor + "\n")
        try:
            os.rename(made, folder)
        except OSError:
            # Somebody else was faster: theirs is whole, too.
            if not (folder / REMEMBERED).exists():
                raise
    print(f"wrote TPC-H at scale factor {scale_factor} to {folder}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: tpch.py SCALE_FACTOR FOLDER")
    main(sys.argv[1], Path(sys.argv[2]))
