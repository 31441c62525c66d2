"""The images of which a view has to rank several rows: looked for once, as long as rows stay."""

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from cluster.lake.snapshot import LakeFile
from cluster.lake.view import View

_AFTER_ALL_RUNS = "~"
_NONE = pa.schema([("image_id", pa.string())]).empty_table()
_Shown = tuple[frozenset[str], frozenset[str]]
"""Files that were read, and runs that were visible in them."""


class Rivals:
    """What was found out about a lake, for all its readers."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[_Shown, pa.Table]] = {}

    def put(
        self,
        connection: duckdb.DuckDBPyConnection,
        view: View,
        files: Sequence[LakeFile],
        published: frozenset[str],
    ) -> None:
        """Make the view's table of rivals, out of ``files`` of what its hashes are taken of."""
        shown = _shown(files, published)
        known, rivals = self._found.get(view.name, (None, _NONE))
        if known != shown:
            rivals = _find(connection, view)
            self._found[view.name] = shown, rivals
        connection.register("_found", rivals)
        connection.execute(f"CREATE TABLE _rivals_{view.name} AS SELECT * FROM _found")


def _shown(files: Sequence[LakeFile], published: frozenset[str]) -> _Shown:
    merged = [one for one in files if one.run_id is None]
    # Run ids begin with their time: a run later than all in merged files is in none of them.
    last = max((one.last_run or _AFTER_ALL_RUNS for one in merged), default="")
    runs = frozenset(run for run in published if run <= last)
    return frozenset(one.path for one in files), runs


def _find(connection: duckdb.DuckDBPyConnection, view: View) -> pa.Table:
    """Numbers that occur twice stand side by side when sorted.

    That takes a third of the time and of the memory in which DuckDB would group them.
    """
    hashes = connection.sql(view.hashes).to_arrow_table()
    twice = np.empty(0, np.uint64)
    for column in hashes.itercolumns():
        ordered = np.sort(column.to_numpy())
        twice = np.union1d(twice, ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return _NONE
    connection.register("_twice", pa.table({"hash": twice}))
    return connection.sql(view.rivals).to_arrow_table()
