"""Nights in a lake without an archive: images by number, and models that score by a rule."""

import datetime as dt
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.lake.runs import LakeRun
from cluster.lake.store import LakeStore
from cluster.works import measure_drift
from jobs import score
from jobs.bundles import model_row
from schemas.plan import ShardResult
from schemas.protocols import Report, Run
from schemas.specs.base import Execution
from schemas.specs.score import ScoreSpec
from schemas.tables import rows_of
from tests.jobs.seeding import DATASET, bundle_config, image, image_id, seed

LOOSE = {"min_reference": 10, "min_compared": 5, "psi": None, "ks": None, "class_share": None}


def likely(number: int) -> float:
    """The probability of ill: evenly spread over any ten images in a row."""
    return (number % 10) / 10 + 0.05


class ToyPool:
    """Scores by the number of an image; those of ``bad`` are rejected, of ``moved`` all ill.

    Those of ``away`` can't be read for the moment.
    """

    def __init__(
        self,
        bad: frozenset[int] = frozenset(),
        moved: frozenset[int] = frozenset(),
        away: frozenset[int] = frozenset(),
    ) -> None:
        self.bad, self.moved, self.away = bad | away, moved, away

    def run_shards(self, run: Run, execution: Execution) -> None:
        assert isinstance(run, LakeRun)
        for shard in run.pending():
            run.record(shard, self._compute(run.rows(shard), run.plan.params["model_id"]))

    def _compute(self, rows: pa.Table, model_id: str) -> ShardResult:
        numbers = [int(one, 16) for one in rows["image_id"].to_pylist()]
        ill = {n: 0.97 if n in self.moved else likely(n) for n in numbers if n not in self.bad}
        predictions: list[dict[str, object]] = [
            {"image_id": image_id(n), "model_id": model_id, "scores": [p, 1 - p], "score": p}
            for n, p in ill.items()
        ]
        rejects: list[dict[str, object]] = [
            {
                "image_id": image_id(n),
                "stage": "score",
                "subject": model_id,
                "etag": etag,
                "reason": "unreadable" if n in self.away else "corrupt",
            }
            for n, etag in zip(numbers, rows["etag"].to_pylist(), strict=True)
            if n in self.bad
        ]
        tables = {"predictions": rows_of("predictions", predictions)}
        if rejects:
            tables["rejects"] = rows_of("rejects", rejects)
        return ShardResult(tables, done=len(ill), rejected=len(rejects))

    def finish(self, run: Run) -> None:
        """Nothing to finish."""

    def train(self, run: Run, config: Mapping[str, Any], workers: int) -> Mapping[str, bytes]:
        raise AssertionError("nothing to train")

    def measure_drift(
        self, scores: pa.Table, reference: pa.Table, model: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return measure_drift(scores, reference, model)


class Nights:
    """A lake to which images come, and one gated scoring a night."""

    def __init__(self, folder: Path | str) -> None:
        self.root = f"{folder}/lake"
        self.store = LakeStore.open(self.root, create=True)

    def copy(self, folder: Path) -> "Nights":
        """The same lake at another place."""
        shutil.copytree(self.root, folder / "lake")
        return Nights(folder)

    def add_bundle(self, name: str = "lungs", version: int = 1, *, nightly: bool = True) -> None:
        config = bundle_config(name, f"{name.encode().hex()[:8]}{version:08d}")
        seed(self.store, {"models": [model_row(config, version, nightly=nightly)]})

    def arrive(self, numbers: range, dataset: str = DATASET, day: int = 1) -> None:
        facts = {"dataset": dataset, "study_date": dt.date(2026, 11, day)}
        kept = [{"image_id": image_id(n), "dataset": dataset, "kept": True} for n in numbers]
        images = [image(n, None, uri=f"{dataset}/{n}.png", **facts) for n in numbers]
        seed(self.store, {"images": images, "quality": kept})

    def score(self, night: int, pool: ToyPool | None = None, **gate: Any) -> Report:
        return self.score_in(DATASET, night, pool, **gate)

    def score_in(self, dataset: str, night: int, pool: ToyPool | None, **gate: Any) -> Report:
        spec = ScoreSpec.model_validate(
            {"dataset": dataset, "model": "lungs", "gate": LOOSE | {"reject_share": None} | gate}
        )
        store = LakeStore.open(self.root, night=dt.date(2026, 11, night))
        return score.run(spec, pool or ToyPool(), store)

    def visible(self) -> int:
        return int(self.store.query("SELECT count(*) AS n FROM predictions")["n"][0].as_py())
