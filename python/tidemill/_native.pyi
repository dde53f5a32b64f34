"""The compiled half of the package; import from `tidemill`."""

from typing import Literal, final

__version__: str

def sql(query: str) -> Table:
    """Runs one query over bounded inputs and returns all its rows. Other threads go on meanwhile."""

@final
class Table:
    """The rows of a query: pass it to whatever reads Arrow, as often as you like.

    pyarrow.table(rows), polars.DataFrame(rows), duckdb.sql("from rows")
    """

    @property
    def column_names(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class TidemillError(Exception):
    """What went wrong, as text; `kind` says what you can do, `hint` how, where that is known."""

    kind: Literal["request", "data", "unavailable", "exhausted", "corrupt", "cancelled", "internal"]
    hint: str | None
