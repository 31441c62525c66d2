"""A driver as a process of its own: ``python driver.py FOLDER LAKE KIND...`` runs those kinds.

It computes in its own process, so a signal that ends it ends everything; in between a reader sees
what a killed driver leaves.
"""

import sys
from pathlib import Path
from typing import Any

from cluster.inline_pool import InlinePool
from cluster.kinds import KINDS
from cluster.lake.store import LakeStore
from schemas.specs.clean import CleanSpec
from schemas.specs.ingest import IngestSpec
from schemas.specs.phantoms import PhantomsSpec
from schemas.specs.prepare import PrepareSpec
from schemas.specs.score import ScoreSpec
from schemas.specs.split import SplitSpec
from schemas.specs.train import TrainSpec

NIGHTLY = ("ingest", "clean", "prepare", "score")
TABLES = ("images", "quality", "prepared", "predictions", "rejects")
_SMALL = {"shard_images": 12}


def jobs(folder: Path) -> list[Any]:
    """The main job on a few small X-rays, in shards of a dozen."""
    archive = folder / "phantoms"
    return [
        PhantomsSpec(
            target=str(archive),
            count=60,
            size=64,
            modalities={"us": 0, "xray": 1},
            broken_share=0.1,
            near_duplicate_share=0.05,
            seed=3,
        ),
        IngestSpec(
            name="chest",
            source=str(archive / "images"),
            metadata={"file": str(archive / "metadata.csv")},
            max_reject_share=0.5,
            execution=_SMALL,
        ),
        CleanSpec(dataset="chest", execution=_SMALL),
        SplitSpec(name="safe", dataset="chest", max_group_share=0.5),
        PrepareSpec(dataset="chest", preprocess={"size": 32}, execution=_SMALL),
        TrainSpec(
            dataset="chest",
            split="chest-safe",
            model="tiny",
            architecture="resnet10t",
            preprocess={"size": 32},
            epochs=1,
            batch_size=16,
            world_size=1,
            backends="eager",
        ),
        ScoreSpec(dataset="chest", model="tiny", execution=_SMALL),
    ]


def main(folder: Path, lake: str, kinds: list[str]) -> None:
    """Run the jobs of some kinds in order."""
    store = LakeStore.open(lake, create=True)
    pool = InlinePool(store.root, lambda text: print(text, file=sys.stderr))
    for job in jobs(folder):
        if job.kind in kinds:
            report = KINDS[job.kind].run(job, pool, store)
            print(report.kind, report.status, report.counts, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
