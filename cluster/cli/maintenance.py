"""`maintain`: merging small files and removing old ones."""

import sys
from dataclasses import asdict

from cluster.cli.options import JsonOption, LakeOption, lake_root
from cluster.cli.output import print_json, say


def maintain(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Merge small files and remove old ones.

    Merges the files of a partition once more than 50 of them are small, and removes files that
    were replaced or left behind over 30 days ago and that no unfinished run needs. No row changes,
    held runs stay held, and runs may go on meanwhile.

    Example: rayward maintain --lake s3://bucket/lake
    """
    from cluster.lake.maintenance import maintain as maintain_lake
    from cluster.lake.store import LakeStore
    from cluster.render import console, grid

    storage = LakeStore.open(lake_root(lake)).storage
    done = maintain_lake(
        storage, progress=(lambda one: print_json(asdict(one))) if as_json else None
    )
    if as_json:
        return
    if not done:
        say("There is nothing to merge or to remove.")
        return
    headers = ("table", "partition", "files", "after", "MB", "after", "removed", "MB")
    rows = [
        (
            one.table,
            one.partition,
            f"{one.files_before:,}",
            f"{one.files_after:,}",
            _megabytes(one.bytes_before),
            _megabytes(one.bytes_after),
            f"{one.removed_files:,}",
            _megabytes(one.removed_bytes),
        )
        for one in done
    ]
    console(sys.stdout).print(grid(headers, rows, right=(2, 3, 4, 5, 6, 7)))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
