import csv
import io
import itertools
import json

import pyarrow as pa
import pytest

from workers.phantoms.sharding import FACTS, load, load_finish

PARAMS = {
    "target": "unused",
    "identity": {"generator": 1, "corpus": {"seed": 5}},
    "corpus": {
        "seed": 5,
        "count": 120,
        "size": 48,
        "modalities": {"us": 1.0, "xray": 1.0},
        "sites": 2,
        "scale_bar_share": 0.5,
        "near_duplicate_share": 0.05,
        "duplicate_share": 0.05,
        "broken_share": 0.05,
        "flawed_share": 0.05,
    },
}


def _made(cuts: list[int]) -> dict[str, bytes]:
    """All files of the corpus, made in shards of these bounds, the last shard first."""
    shard, files, staged = load(PARAMS), {}, []
    for start, end in reversed(list(itertools.pairwise(cuts))):
        rows = pa.table({"index": pa.array(range(start, end), pa.int64())})
        result = shard(rows, [b""] * rows.num_rows)
        assert (result.done, result.rejected) == (end - start, 0)
        assert next(iter(result.files)) == "generator.json"
        files |= dict(result.files)
        staged.append(result.tables)
    tables = {name: pa.concat_tables([one[name] for one in staged]) for name in staged[0]}
    finished = load_finish(PARAMS)(tables)
    assert (finished.done, finished.rejected) == (0, 0)
    assert list(finished.files)[-1] == "corpus.json"
    return files | dict(finished.files)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return _made([0, 120])


def _rows(files: dict[str, bytes], name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files[f"{name}.csv"].decode())))


def test_sharding_changes_nothing(files: dict[str, bytes]) -> None:
    assert _made([0, 1, 7, 50, 113, 120]) == files


def test_tables_are_staged_only() -> None:
    result = load(PARAMS)(pa.table({"index": pa.array([0, 1])}), [b"", b""])
    assert set(result.tables) == {f"_{name}" for name in FACTS}


def test_every_image_has_its_metadata(files: dict[str, bytes]) -> None:
    rows = _rows(files, "metadata")
    images = sorted(path for path in files if path.startswith("images/"))
    assert sorted(f"images/{row['path']}" for row in rows) == images
    assert len(rows) == 120
    assert list(rows[0]) == [
        "path", "patient", "sex", "age", "site", "view", "label", "modality", "study_date",
    ]  # fmt: skip
    assert [int(row["path"].split("/")[-1].split(".")[0]) for row in rows] == list(range(120))


def test_truth_names_existing_files(files: dict[str, bytes]) -> None:
    masks = {path for path in files if path.startswith("masks/")}
    assert {row["mask"] for row in _rows(files, "boxes")} == masks
    for name in FACTS:
        assert all(f"images/{row['path']}" in files for row in _rows(files, name))
    for name in ("scale_bars", "duplicates", "broken", "flaws"):
        assert _rows(files, name)


def test_the_manifest_says_what_the_corpus_is(files: dict[str, bytes]) -> None:
    manifest = json.loads(files["corpus.json"])
    assert manifest["identity"] == PARAMS["identity"]
    assert manifest["rows"]["metadata"] == 120
    assert manifest["rows"]["boxes"] == len(_rows(files, "boxes"))
    assert json.loads(files["generator.json"])["identity"] == PARAMS["identity"]


def test_a_kind_of_truth_without_rows_is_a_table_without_rows() -> None:
    finished = load_finish(PARAMS)({})
    assert finished.files["flaws.csv"] == b"path,flaw\n"
