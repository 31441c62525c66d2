"""From the command to the first shard done, beside Ray's own start-up."""

import sys
import time
from pathlib import Path

from benchmarks.harness import Bar, Context, Figure, figure
from benchmarks.processes import RAYWARD, run
from workers.phantoms.corpus import Corpus

BAR = Bar(2, "x")
_IMAGES = 64
_RAY = """
import os, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import logging, ray, tempfile
folder = tempfile.mkdtemp(prefix="rwb-")
ray.init(num_cpus={cores}, object_store_memory=512 * 2**20, include_dashboard=False,
         log_to_driver=False, logging_level=logging.ERROR, _temp_dir=folder)
print(time.time())
@ray.remote
class Slot:
    def work(self):
        return time.time()
print(ray.get(Slot.remote().work.remote()))
ray.shutdown()
import shutil
shutil.rmtree(folder, ignore_errors=True)
"""


def measure(context: Context) -> list[Figure]:
    """`rayward run` of an ingest up to its first receipt, against a script that calls `ray.init`.

    Both are whole commands: the interpreter and its imports count. Told beside it: how long the
    script takes until an actor that does nothing has answered, which no job on Ray can beat.
    """
    archive = context.directory / "archive"
    archive.mkdir(parents=True)
    corpus = Corpus(seed=3, count=10**4, size=64, modalities={"xray": 1})
    for index in range(_IMAGES):
        image = corpus.render(index).files[0]
        (archive / Path(image.path).name).write_bytes(image.data)
    ours, init, actor = [], [], []
    for number in range(max(3, context.rounds)):
        started = time.time()
        done = run([sys.executable, "-c", _RAY.format(cores=context.cores)], every_s=0.5)
        ready, answered = (float(one) - started for one in done.stdout.split())
        init.append(ready)
        actor.append(answered)
        ours.append(_first_receipt(context, archive, number))
    ratios = [mine / theirs for mine, theirs in zip(ours, init, strict=True)]
    return [
        figure(
            "command to first shard done, against Ray's own start",
            BAR,
            ratios,
            note="",
            first_shard_s=ours,
            ray_init_s=init,
            ray_first_actor_s=actor,
        )
    ]


def _first_receipt(context: Context, archive: Path, number: int) -> float:
    """Seconds from the start of the command to the time at which the receipt was written."""
    lake = context.directory / f"lake-{number}"
    file = context.directory / "jobs.yaml"
    file.write_text(f"jobs: [{{kind: ingest, name: few, source: {archive}, modality: CR}}]\n")
    started = time.time()
    run([RAYWARD, "run", str(file), "--lake", str(lake)], every_s=0.5)
    receipts = list(lake.glob("_runs/*/shards/*.json"))
    return min(one.stat().st_mtime for one in receipts) - started
