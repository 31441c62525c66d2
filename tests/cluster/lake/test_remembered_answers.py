"""Answers that a snapshot keeps: asked once, within a budget."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.lake import store as module
from cluster.lake.reader import LakeReader
from cluster.lake.store import LakeStore


def test_answers_of_a_snapshot_are_kept_up_to_a_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def query(_: LakeReader, sql: str, parameters: Mapping[str, Any] | None) -> pa.Table:
        asked.append(sql)
        rows = 101 if sql == "large" else 40
        return pa.table({"x": pa.array(range(rows), pa.int8())})

    monkeypatch.setattr(LakeReader, "query", query)
    monkeypatch.setattr(module, "_REMEMBERED_BYTES", 100)
    monkeypatch.setattr(module, "_ALL_REMEMBERED_BYTES", 100)
    store = LakeStore.open(str(tmp_path), create=True)
    with store.snapshot():
        for sql in ("a", "b", "b", "a", "large", "large"):
            store.query(sql)
        assert asked == ["a", "b", "large", "large"]
        store.query("c")  # a third answer of 40 bytes: the oldest goes
        store.query("b")
        assert asked[4:] == ["c"]
        assert store.query("a").num_rows == 40
        assert asked[5:] == ["a"]
    with store.snapshot():
        store.query("c")
    assert asked[6:] == ["c"]
