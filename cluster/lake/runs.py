"""Runs on their way: plans and receipts, each created once and never changed."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from cluster.lake.files import DataFile, decode_parquet, encode_parquet, write_rows
from cluster.lake.layout import (
    open_prefix,
    plan_path,
    planned_path,
    receipt_path,
    receipts_prefix,
    staged_path,
)
from cluster.storage import Storage
from schemas.errors import RunError
from schemas.plan import Counts, Plan, ShardResult
from schemas.tables import TABLES

FINISH = "finish"
"""The shard name of the finishing step."""
_HEADER = b"rayward"


@dataclass(frozen=True)
class Cost:
    """Seconds of processors that an attempt took."""

    cpu_s: float = 0.0
    """Computed by its process, on all threads."""
    gpu_s: float = 0.0
    """GPUs that its process held, times the seconds it held them."""


@dataclass(frozen=True)
class Receipt:
    """What a shard did, or that it was halved."""

    shard: str
    counts: Counts = field(default_factory=Counts)
    files: Mapping[str, list[DataFile]] = field(default_factory=dict)
    """Data files by table."""
    staged: Mapping[str, str] = field(default_factory=dict)
    """Path of the staged file by staged table."""
    facts: Mapping[str, int | float] = field(default_factory=dict)
    halves: tuple[str, str] | None = None
    """The shards that replace this one."""
    cost: Cost | None = None
    """Of the attempt that put the receipt, where it was measured."""

    def to_bytes(self) -> bytes:
        """The receipt as its object holds it."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @staticmethod
    def from_bytes(data: bytes) -> "Receipt":
        """Read a receipt back."""
        values = json.loads(data)
        return Receipt(
            shard=values["shard"],
            counts=Counts(**values["counts"]),
            files={
                table: [DataFile(**one) for one in files]
                for table, files in values["files"].items()
            },
            staged=values["staged"],
            facts=values["facts"],
            halves=tuple(values["halves"]) if values["halves"] else None,
            cost=Cost(**values["cost"]) if values["cost"] else None,
        )


class RunWriter:
    """Puts the results of shards; all a worker needs to know of a run."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self.storage = storage
        self.run_id = run_id

    def record(self, shard: str, result: ShardResult, cost: Cost | None = None) -> bool:
        """Write a shard's rows, then its receipt; says whether this attempt was the first.

        ``cost`` is what the attempt took, where that was measured.
        Files of a later attempt are removed again: no receipt names them.
        """
        files: dict[str, list[DataFile]] = {}
        staged: dict[str, str] = {}
        for table, rows in result.tables.items():
            if table.startswith("_"):
                staged[table] = staged_path(table, self.run_id, shard)
                self.storage.put(staged[table], encode_parquet(rows))
            else:
                files[table] = write_rows(
                    self.storage, table, rows, run_id=self.run_id, shard=shard
                )
        counts = Counts(done=result.done, rejected=result.rejected, gone=result.gone)
        receipt = Receipt(shard, counts, files, staged, dict(result.facts), cost=cost)
        if self._put(receipt):
            return True
        for path in [*staged.values(), *(one.path for some in files.values() for one in some)]:
            self.storage.delete(path)
        return False

    def halve(self, shard: str) -> bool:
        """Replace a shard by its halves, unless it was done meanwhile; says whether it did."""
        return self._put(Receipt(shard, halves=(f"{shard}.0", f"{shard}.1")))

    def _put(self, receipt: Receipt) -> bool:
        return self.storage.claim(receipt_path(self.run_id, receipt.shard), receipt.to_bytes())


class LakeRun(RunWriter):
    """A run under its lease, as the driver sees it."""

    def __init__(self, storage: Storage, run_id: str, *, resumed: bool) -> None:
        super().__init__(storage, run_id)
        self.resumed = resumed

    @property
    def id(self) -> str:
        """The run's name."""
        return self.run_id

    @cached_property
    def _planned(self) -> tuple[Plan, dict[str, Any]]:
        return read_plan(self.storage, self.run_id)

    @property
    def plan(self) -> Plan:
        """What the run computes, as it was fixed."""
        return self._planned[0]

    @property
    def header(self) -> Mapping[str, Any]:
        """What was noted beside the plan: the spec, table versions and transaction versions."""
        return self._planned[1]

    def rows(self, shard: str) -> pa.Table:
        """The inputs of a shard or of a half."""
        start, stop = _extent(self.plan.bounds, shard)
        return self.plan.inputs.slice(start, stop - start)

    def receipts(self) -> dict[str, Receipt]:
        """All receipts by shard, the finishing step's included."""
        paths = sorted(one.path for one in self.storage.list(receipts_prefix(self.run_id)))
        receipts = map(Receipt.from_bytes, self.storage.get_many(paths))
        return {receipt.shard: receipt for receipt in receipts}

    def pending(self) -> list[str]:
        """Shards without a receipt; a halved shard stands for its halves."""
        return list(self._leaves(self.receipts(), lambda receipt: receipt is None))

    def is_finished(self) -> bool:
        """Whether the finishing step has its receipt."""
        return self.storage.head(receipt_path(self.run_id, FINISH)) is not None

    def done(self) -> list[Receipt]:
        """The receipts that count: of shards that were not halved, and of halves.

        Raises:
            RunError: if a shard has none.
        """
        receipts = self.receipts()
        missing = list(self._leaves(receipts, lambda receipt: receipt is None))
        if missing:
            raise RunError(
                "The run is not finished",
                where=self.run_id,
                got=f"{len(missing)} shards without a receipt",
                remedy="run the job again; it goes on where it stopped",
            )
        leaves = self._leaves(receipts, lambda receipt: receipt is not None)
        finish = [receipts[FINISH]] if FINISH in receipts else []
        return [receipts[shard] for shard in leaves] + finish

    def staged(self, table: str) -> pa.Table:
        """All rows staged under ``table``, in the order of the shards."""
        paths = [one.staged[table] for one in self.done() if table in one.staged]
        return pa.concat_tables([decode_parquet(data) for data in self.storage.get_many(paths)])

    def written(self, table: str, columns: list[str]) -> pa.Table:
        """What all shards wrote to a table, whether it is visible yet or not."""
        paths = [file.path for one in self.done() for file in one.files.get(table, ())]
        empty = TABLES[table].schema.empty_table().select(columns)
        found = (decode_parquet(data, columns) for data in self.storage.get_many(paths))
        return pa.concat_tables([empty, *(one.cast(empty.schema) for one in found)])

    def outcomes(self) -> Counts:
        """What became of the inputs, once every shard has its receipt."""
        return sum((one.counts for one in self.done() if one.shard != FINISH), Counts())

    def staged_tables(self) -> dict[str, pa.Table]:
        """Everything the finishing step sees: what shards staged, and what planning left."""
        names = {table for receipt in self.done() for table in receipt.staged}
        return {**{name: self.staged(name) for name in sorted(names)}, **self.plan.staged}

    def _leaves(
        self, receipts: Mapping[str, Receipt], wanted: Callable[[Receipt | None], bool]
    ) -> Iterator[str]:
        todo = [f"{number:05d}" for number in reversed(range(self.plan.shards))]
        while todo:
            shard = todo.pop()
            receipt = receipts.get(shard)
            if receipt is not None and receipt.halves:
                todo.extend(reversed(receipt.halves))
            elif wanted(receipt):
                yield shard


def write_plan(storage: Storage, run_id: str, plan: Plan, header: Mapping[str, Any]) -> None:
    """Fix a plan: first the plan itself, then the mark that its run is open."""
    values = {
        one: getattr(plan, one)
        for one in ("kind", "name", "key", "identity", "params", "bounds", "facts", "unit")
    }
    document = {
        **values,
        "counts": asdict(plan.counts),
        "staged": sorted(plan.staged),
        "header": dict(header),
    }
    for table, rows in plan.staged.items():
        storage.put(planned_path(run_id, table), encode_parquet(rows))
    text = json.dumps(document, separators=(",", ":"))
    inputs = plan.inputs.replace_schema_metadata({_HEADER: text.encode()})
    if not storage.claim(plan_path(run_id), encode_parquet(inputs)):
        raise RunError("Two runs chose the same name", where=run_id, remedy="run the job again")
    storage.put(f"{open_prefix(plan.key)}/{run_id}", plan.fingerprint.encode())


def read_plan(storage: Storage, run_id: str) -> tuple[Plan, dict[str, Any]]:
    """Read a plan back, and what was noted beside it."""
    inputs = decode_parquet(storage.get(plan_path(run_id)))
    document = json.loads(inputs.schema.metadata[_HEADER])
    header = document.pop("header")
    plan = Plan(
        kind=document["kind"],
        name=document["name"],
        key=tuple(document["key"]),
        identity=document["identity"],
        params=document["params"],
        inputs=inputs.replace_schema_metadata(None),
        bounds=tuple(document["bounds"]),
        counts=Counts(**document["counts"]),
        facts=document["facts"],
        unit=document["unit"],
        staged={
            table: decode_parquet(storage.get(planned_path(run_id, table)))
            for table in document["staged"]
        },
    )
    return plan, header


def _extent(bounds: tuple[int, ...], shard: str) -> tuple[int, int]:
    """The rows of a shard; ``00007.0`` is the first half of shard 7, ``.1`` the second."""
    number, *halves = shard.split(".")
    start, stop = bounds[int(number)], bounds[int(number) + 1]
    for half in halves:
        middle = (start + stop) // 2
        start, stop = (start, middle) if half == "0" else (middle, stop)
    return start, stop
