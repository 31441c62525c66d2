"""How DuckDB runs: its memory and threads, where it spills, and that it loads nothing."""

import os
from pathlib import Path

import psutil

PLANNING_MB = 192
"""Enough to plan over a million images; more would only make the driver bigger."""
_MOST_THREADS = 8
_THREAD_MB = 48
"""Each thread holds row groups and partitions of its own, and needs room for them."""
_MORE_MEMORY = 4


def settings(spill: Path, memory_mb: int) -> dict[str, str | bool | int | float | list[str]]:
    """The configuration of a connection that spills into the folder ``spill``."""
    return {
        "memory_limit": f"{memory_mb}MB",
        "threads": max(1, min(os.cpu_count() or 1, _MOST_THREADS, memory_mb // _THREAD_MB)),
        "temp_directory": str(spill),
        # Keeping the order of rows of the files would mean holding them back in memory.
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        # Otherwise a query could read the variables of whoever calls.
        "python_enable_replacements": False,
    }


def more_memory(memory_mb: int) -> int | None:
    """What a query gets that ``memory_mb`` were too little for; nothing where that is too much."""
    more = memory_mb * _MORE_MEMORY
    return more if more <= spare_mb() else None


def spare_mb() -> int:
    """What one query may take at most: half of the memory that is free now."""
    return int(psutil.virtual_memory().available // 2**21)
