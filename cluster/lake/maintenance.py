"""Cleaning up: small files become large ones, and files that nobody needs any more go.

Neither changes what readers see. A compaction replaces files of one partition by one that holds
the same rows, those of held and unfinished runs included: rows name their run, so such a file is
filtered row by row. The files that it replaces stay on disk as long as the table promises
(``delta.deletedFileRetentionDuration``), and longer while the plan of an unfinished run names them.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
from deltalake import ColumnProperties, DeltaTable, PostCommitHookProperties, WriterProperties
from deltalake.exceptions import DeltaError

from cluster.lake.commit import open_table
from cluster.lake.layout import plan_path
from cluster.lake.leases import hold
from cluster.lake.runs import read_plan
from cluster.lake.snapshot import LakeFile, TableSnapshot
from cluster.storage import Storage
from schemas.errors import CommitConflict
from schemas.tables import TABLES, TableSchema

KEY = ("maintain",)
"""What the one driver that maintains a lake holds."""
SMALL_FILES = 50
"""A partition with more small files than this is compacted."""
TARGET_BYTES = 128 * 2**20
_PARALLEL_DELETES = 16
_CODECS = {"zstd": "ZSTD", "lz4": "LZ4_RAW"}
"""Parquet's names of the codecs; its LZ4 is an older form that few readers know."""


@dataclass(frozen=True)
class Maintained:
    """What was done to one partition; bytes are those of its data files."""

    table: str
    partition: str
    """Folder of the partition, such as ``model_id=0f3a``; empty where the table has none."""
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    removed_files: int
    """Files that were replaced or left behind before, and are gone from the store now."""
    removed_bytes: int


@dataclass(frozen=True)
class _Crowded:
    """A partition to compact."""

    partition: Mapping[str, str]
    target_bytes: int


@dataclass(frozen=True)
class _Needed:
    """What unfinished runs still need."""

    runs: frozenset[str]
    """Runs whose files may not be part of a table yet."""
    paths: frozenset[str]
    """Files, as paths below the lake's root, that a plan told workers to read."""

    def __contains__(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        return path in self.paths or any(name.startswith(f"{run}-") for run in self.runs)


def maintain(
    storage: Storage, *, progress: Callable[[Maintained], None] | None = None
) -> list[Maintained]:
    """Compact partitions of many small files, write checkpoints, remove files nobody needs.

    Runs may go on meanwhile. Partitions to which nothing was done are left out; ``progress`` is
    told of each of the others as soon as its table is done.

    Raises:
        LeaseHeld: if another driver maintains the lake.
        LeaseLost: if another driver took over; what was done so far stands.
        CommitConflict: if a table can't be compacted; its rows stay as they were.
    """
    done: list[Maintained] = []
    with hold(storage, KEY) as lease:
        # Before any log is opened: a run that ends after this moment is still taken for open, and
        # the files of one that had ended stand in the logs already.
        needed = _needed(storage)
        for table in TABLES:
            files = TableSnapshot(storage, table).files
            lease.check()
            compacted = _compact(storage, table, _crowded(TABLES[table], files))
            lease.check()
            removed = _vacuum(storage, table, needed)
            if not (compacted or removed):
                continue
            before, after = _partitions(files), _partitions(TableSnapshot(storage, table).files)
            for one in _changes(table, before, after, removed):
                done.append(one)
                if progress:
                    progress(one)
    return done


def _compact(storage: Storage, table: str, partitions: Sequence[_Crowded]) -> bool:
    """Merge the small files of partitions of a table and checkpoint it; says whether there were."""
    handle = open_table(storage, table) if partitions else None
    if handle is None:
        return False
    try:
        for partition in partitions:
            _merge(handle, table, partition)
    except DeltaError as error:
        raise CommitConflict(
            "A table can't be compacted",
            where=table,
            got=str(error),
            remedy="its rows are as they were; run `rayward maintain` again",
        ) from error
    handle.create_checkpoint()
    return True


def _merge(handle: DeltaTable, table: str, crowded: _Crowded) -> None:
    values = crowded.partition.items()
    handle.optimize.compact(
        partition_filters=[(column, "=", value) for column, value in values] or None,
        target_size=crowded.target_bytes,
        max_concurrent_tasks=1,  # bounds the memory
        writer_properties=_writer_properties(TABLES[table]),
        post_commithook_properties=PostCommitHookProperties(
            create_checkpoint=True, cleanup_expired_logs=False
        ),
    )


def _writer_properties(table: TableSchema) -> WriterProperties:
    """Parquet as `cluster.lake.files` writes it; pixels get no dictionary and no statistics."""
    plain = ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")
    pixels = [one.name for one in table.schema if pa.types.is_binary(one.type)]
    return WriterProperties(
        max_row_group_size=table.rows_per_group,
        compression=_CODECS[table.compression],  # type: ignore[arg-type]
        column_properties=dict.fromkeys(pixels, plain) or None,
    )


def _crowded(table: TableSchema, files: Sequence[LakeFile]) -> list[_Crowded]:
    """The partitions with too many small files."""
    of_partition: dict[tuple[tuple[str, str], ...], list[LakeFile]] = defaultdict(list)
    for one in files:
        of_partition[tuple(one.partition.items())].append(one)
    found = []
    for partition, members in of_partition.items():
        target = _target_bytes(table, members)
        # Well below the target, because a compacted file is smaller than those it replaces were.
        if sum(one.bytes < target / 4 for one in members) > SMALL_FILES:
            found.append(_Crowded(dict(partition), target))
    return found


def _target_bytes(table: TableSchema, files: Sequence[LakeFile]) -> int:
    """The size of a compacted file.

    Rows of files that are merged stand one after the other, so a reader of a few hundred images
    has to go through the whole of a file of prepared pixels.
    """
    rows = sum(one.rows or 0 for one in files)
    if table.rows_per_file is None or not rows:
        return TARGET_BYTES
    mean = sum(one.bytes for one in files) / rows
    return min(TARGET_BYTES, max(1, round(mean * table.rows_per_file)))


def _vacuum(storage: Storage, table: str, needed: _Needed) -> dict[str, int]:
    """Remove files that left the table, or never came into it, longer ago than it promises.

    Returns bytes by path below the table's folder. deltalake finds the files; it can't be told to
    spare some, so they are removed here.
    """
    handle = open_table(storage, table)
    if handle is None:
        return {}
    # Every file that is in no log: a checkpoint forgets what was removed before its retention.
    folder = f"tables/{table}"
    found = {f"{folder}/{path}" for path in handle.vacuum(dry_run=True, full=True)}
    unused = {path for path in found if path not in needed}
    if not unused:
        return {}
    sizes = {one.path: one.bytes for one in storage.list(folder) if one.path in unused}
    with ThreadPoolExecutor(_PARALLEL_DELETES) as deletes:
        list(deletes.map(storage.delete, sizes))
    return {path.removeprefix(f"{folder}/"): size for path, size in sizes.items()}


def _needed(storage: Storage) -> _Needed:
    runs = frozenset(one.path.rpartition("/")[2] for one in storage.list("_open"))
    paths: set[str] = set()
    for run_id in runs:
        if storage.head(plan_path(run_id)) is None:
            continue
        plan, _ = read_plan(storage, run_id)
        for rows in (plan.inputs, *plan.staged.values()):
            if "prepared" in rows.column_names:
                paths.update(rows["prepared"].cast(pa.string()).unique().drop_null().to_pylist())
    return _Needed(runs, frozenset(paths))


def _partitions(files: Sequence[LakeFile]) -> dict[str, tuple[int, int]]:
    """Files and bytes by partition folder."""
    found: dict[str, tuple[int, int]] = {}
    for one in files:
        count, size = found.get(_folder(one.path), (0, 0))
        found[_folder(one.path)] = count + 1, size + one.bytes
    return found


def _folder(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def _changes(
    table: str,
    before: Mapping[str, tuple[int, int]],
    after: Mapping[str, tuple[int, int]],
    removed: Mapping[str, int],
) -> list[Maintained]:
    gone: dict[str, list[int]] = {}
    for path, size in removed.items():
        gone.setdefault(_folder(path), []).append(size)
    none = (0, 0)
    return [
        Maintained(
            table,
            folder,
            files_before=before.get(folder, none)[0],
            files_after=after.get(folder, none)[0],
            bytes_before=before.get(folder, none)[1],
            bytes_after=after.get(folder, none)[1],
            removed_files=len(gone.get(folder, [])),
            removed_bytes=sum(gone.get(folder, [])),
        )
        for folder in sorted({*before, *gone})
        if folder in gone or after.get(folder, none)[0] < before.get(folder, none)[0]
    ]
