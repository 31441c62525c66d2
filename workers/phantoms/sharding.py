"""The shards of a corpus: render a range of indices, then write the tables of truth.

Every shard writes ``generator.json``, which claims the directory for one corpus; the finishing
step writes ``corpus.json`` last, which says that the corpus is whole.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.plan import Blob, FinishFunction, ShardFunction, ShardResult
from workers.phantoms.corpus import Corpus, Row

_BOX = {"x": pa.int32(), "y": pa.int32(), "w": pa.int32(), "h": pa.int32()}

FACTS: Mapping[str, Mapping[str, pa.DataType]] = {
    "metadata": {
        "path": pa.string(),
        "patient": pa.string(),
        "sex": pa.string(),
        "age": pa.int32(),
        "site": pa.string(),
        "view": pa.string(),
        "label": pa.string(),
        "modality": pa.string(),
        "study_date": pa.date32(),
    },
    "boxes": {
        "path": pa.string(),
        "patient": pa.string(),
        "category": pa.string(),
        **_BOX,
        "mask": pa.string(),
    },
    "scale_bars": {
        "path": pa.string(),
        "colour": pa.string(),
        **_BOX,
        "mm_per_tick": pa.float64(),
    },
    "duplicates": {"path": pa.string(), "duplicate_of": pa.string(), "kind": pa.string()},
    "broken": {"path": pa.string(), "defect": pa.string(), "reason": pa.string()},
    "flaws": {"path": pa.string(), "flaw": pa.string()},
}
"""Tables of truth and their columns; each becomes a CSV file of that name."""


def load(params: Mapping[str, Any]) -> ShardFunction:
    """Prepare the shards of the corpus that ``params["corpus"]`` describes."""
    corpus = _corpus(params["corpus"])
    claim = _json({"identity": params["identity"]})

    def phantom_shard(rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        return _render(corpus, rows.column("index").to_pylist(), claim)

    return phantom_shard


def load_finish(params: Mapping[str, Any]) -> FinishFunction:
    """Prepare the step that writes the CSV files and, last, the manifest."""

    def finish(staged: Mapping[str, pa.Table]) -> ShardResult:
        files, counts = {}, {}
        for name in FACTS:
            table = staged.get(f"_{name}", _schema(name).empty_table())
            files[f"{name}.csv"] = _csv(table)
            counts[name] = table.num_rows
        manifest = {"images": "images", "identity": params["identity"], "rows": counts}
        files["corpus.json"] = _json(manifest)
        return ShardResult(tables={}, done=0, rejected=0, files=files)

    return finish


def _corpus(values: Mapping[str, Any]) -> Corpus:
    return Corpus(
        seed=values["seed"],
        count=values["count"],
        size=values["size"],
        modalities=values["modalities"],
        sites=values["sites"],
        scale_bar_share=values["scale_bar_share"],
        near_duplicate_share=values["near_duplicate_share"],
        duplicate_share=values["duplicate_share"],
        broken_share=values["broken_share"],
        flawed_share=values["flawed_share"],
    )


def _render(corpus: Corpus, indices: Sequence[int], claim: bytes) -> ShardResult:
    files = {"generator.json": claim}
    rows: dict[str, list[Row]] = {name: [] for name in FACTS}
    for index in indices:
        phantom = corpus.render(index)
        files.update((file.path, file.data) for file in phantom.files)
        for name, added in phantom.rows.items():
            rows[name] += ({"index": index} | row for row in added)
    return ShardResult(
        tables={
            f"_{name}": pa.Table.from_pylist(rows[name], schema=_schema(name)) for name in FACTS
        },
        done=len(indices),
        rejected=0,
        files=files,
    )


def _schema(name: str) -> pa.Schema:
    return pa.schema({"index": pa.int64()} | dict(FACTS[name]))


def _csv(table: pa.Table) -> bytes:
    """Rows in the order of their images, without the index."""
    # The position among the rows of one image keeps the order of its boxes.
    order = table.append_column("row", pa.array(range(table.num_rows)))
    sorted_rows = order.sort_by([("index", "ascending"), ("row", "ascending")])
    shown = sorted_rows.drop_columns(["index", "row"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(shown.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in shown.columns), strict=True))
    return text.getvalue().encode()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
