"""An audit of a split as rows of tables, as facts for the user, and as a gate."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.errors import LeakError
from schemas.tables import TABLES, rows_of
from workers.grouping import Indices, Links, hashes_of, patients_of
from workers.leaks import Leak, find_leaks
from workers.parts import PartBits

MADE, GIVEN = "made", "given"
"""Whose split was audited: the one a job made, or the data set's own."""

_SCHEMA = TABLES["leaks"].schema.remove(TABLES["leaks"].schema.get_field_index("run_id"))


@dataclass(frozen=True)
class Audit:
    """The leaks of one split of these rows."""

    source: str
    rows: pa.Table
    """Columns image_id, patient_ids and phash."""
    leaks: tuple[Leak, ...]

    @staticmethod
    def of(source: str, rows: pa.Table, links: Links, parts: PartBits) -> "Audit":
        """Compare each two parts that have images."""
        return Audit(source, rows, tuple(find_leaks(rows, links, parts)))

    def facts(self) -> Iterator[tuple[str, int]]:
        """Yield what the user is told: counts by each two parts."""
        for leak in self.leaks:
            where = f"in {leak.first} and {leak.second} as {self.source}"
            yield f"patients {where}", leak.patients
            yield f"images {where}", leak.images
            yield f"near-duplicates {where}", leak.near_duplicates

    def metrics(self, params: Mapping[str, Any]) -> pa.Table:
        """Return the counts as rows of `metrics`."""
        return rows_of(
            "metrics", [row for leak in self.leaks for row in self._counts(leak, params)]
        )

    def named(self, params: Mapping[str, Any]) -> pa.Table:
        """Return rows of `leaks`: every image that an earlier part has seen."""
        patients = patients_of(self.rows).names
        hashed, values = hashes_of(self.rows)
        known = np.zeros(self.rows.num_rows, np.bool_)
        known[hashed] = True
        hashes = np.zeros(self.rows.num_rows, np.uint64)
        hashes[hashed] = values

        def seen(leak: Leak, kind: str, row: Indices, other: Indices) -> dict[str, pa.Array]:
            distance = np.bitwise_count(hashes[row] ^ hashes[other]).astype(np.int32)
            ids = self.rows["image_id"].combine_chunks()
            columns = {
                "split_name": params["split_name"],
                "dataset": params["dataset"],
                "source": self.source,
                "kind": kind,
                "first_part": leak.first,
                "second_part": leak.second,
            }
            return {name: pa.repeat(value, len(row)) for name, value in columns.items()} | {
                "image_id": ids.take(pa.array(row)),
                "other_image_id": ids.take(pa.array(other)),
                "patient_id": pa.nulls(len(row), pa.string()),
                "distance": pa.array(distance, mask=~(known[row] & known[other])),
            }

        tables = [_SCHEMA.empty_table()]
        for leak in self.leaks:
            near, same = leak.by_nearness, leak.by_patient
            of_patients = seen(leak, "patient", same.row, same.other)
            of_patients["patient_id"] = patients.take(pa.array(leak.patient))
            for columns in (
                of_patients,
                # Equal bytes have equal pixels, whether or not they could be hashed.
                seen(leak, "image", leak.by_bytes, leak.by_bytes)
                | {"distance": pa.repeat(pa.scalar(0, pa.int32()), leak.images)},
                seen(leak, "near_duplicate", near.row, near.other),
            ):
                tables.append(pa.Table.from_pydict(columns, schema=_SCHEMA))
        return pa.concat_tables(tables)

    def refuse(self, split_name: str) -> None:
        """Stop a split that was to have no leaks.

        Raises:
            LeakError: if it has one.
        """
        for leak in self.leaks:
            if leak.any:
                raise LeakError(
                    "The split that was made leaks",
                    where=f"{split_name}: {leak.first} and {leak.second}",
                    got=(
                        f"{leak.patients} patients, {leak.images} images and "
                        f"{leak.near_duplicates} near-duplicates on both sides"
                    ),
                    remedy="this is a defect of split; nothing was published; please report it",
                )

    def _counts(self, leak: Leak, params: Mapping[str, Any]) -> Iterator[dict[str, object]]:
        for metric in ("patients", "images", "near_duplicates"):
            yield {
                "study": params["split_name"],
                "dataset": params["dataset"],
                "part": f"{leak.first}|{leak.second}",
                "subgroup": "",
                "metric": f"leak_{metric}",
                "category": self.source,
                "value": float(getattr(leak, metric)),
                "n": leak.second_size,
            }
