"""An archive of small pictures and a lake to catalogue it in, without Ray."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

import jobs.ingest
from cluster.fetch import Fetcher
from cluster.lake.store import LakeStore
from schemas.plan import Plan
from schemas.protocols import Report, Run
from schemas.specs.base import Execution
from schemas.specs.ingest import IngestSpec
from workers.ingest import load
from workers.pseudonyms import Pseudonymizer


def picture(seed: int) -> bytes:
    array = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, "PNG")
    return sink.getvalue()


class LocalPool:
    """Computes shards in this process and remembers which files were read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def run_shards(self, run: Run, execution: Execution) -> None:
        plan, work, fetcher = run.plan, load(run.plan.params), Fetcher()
        reveal = Pseudonymizer.from_key_file().reveal
        for shard in run.pending():
            first, last = plan.bounds[int(shard)], plan.bounds[int(shard) + 1]
            rows = plan.inputs.slice(first, last - first)
            wanted = rows.filter(rows["read"])["uri"].to_pylist()
            self.read += [Path(reveal(uri)).name for uri in wanted]
            run.record(shard, work(rows, fetcher.fetch(rows)))

    def finish(self, run: Run) -> None:
        return

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        raise NotImplementedError


class World:
    """A source folder, a lake, and what happened at the last run."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.lake = LakeStore.open(str(folder / "lake"), create=True)
        self.read: list[str] = []
        self._seed = 0

    def add(self, *paths: str) -> None:
        """Write new pictures."""
        for path in paths:
            self._seed += 1
            self.write(path, picture(self._seed))

    def write(self, path: str, data: bytes) -> Path:
        file = self.source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        # Two writes within one tick of the clock would share their etag.
        self._seed += 1
        os.utime(file, ns=(self._seed * 10**9, self._seed * 10**9))
        return file

    def spec(self, **fields: Any) -> IngestSpec:
        return IngestSpec.model_validate({"name": "demo", "source": str(self.source)} | fields)

    def plan(self, **fields: Any) -> Plan:
        return jobs.ingest.plan(self.spec(**fields), self.lake)

    def ingest(self, **fields: Any) -> Report:
        pool = LocalPool()
        report = jobs.ingest.run(self.spec(**fields), pool, self.lake)
        self.read = sorted(pool.read)
        return report

    def query(self, sql: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.lake.query(sql).to_pylist()
        return rows

    def present(self, *columns: str) -> dict[str, Any]:
        """The present files by their path in the clear, with some columns."""
        rows = self.lake.query("SELECT * FROM current_images")
        key = Pseudonymizer.from_key_file()
        return {
            key.reveal(uri).removeprefix(f"{self.source}/"): (
                row[columns[0]] if len(columns) == 1 else tuple(row[name] for name in columns)
            )
            for row in rows.to_pylist()
            for uri in row["uris"]
        }

    def stored_bytes(self) -> bytes:
        """Everything that lies in the lake, Parquet files decoded."""
        root = self.lake.storage.local_path
        assert root is not None
        parts = []
        for path in root.rglob("*"):
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                parts += [repr(table.to_pylist()).encode(), repr(table.schema.metadata).encode()]
            elif path.is_file():
                parts.append(path.read_bytes())
        return b"\n".join(parts)
