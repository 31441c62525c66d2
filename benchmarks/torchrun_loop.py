"""The epoch loop under torchrun, for `training`: what Ray Train is measured against.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.torchrun_loop ARCHIVE EPOCHS FOLDER

The first rank writes `FOLDER/ends.json`: the moment and the figures of every finished epoch.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.epochs import CACHE_BYTES, config, rows
from benchmarks.niceness import as_ray_worker
from cluster.fetch import Fetcher
from workers.models.classifier.fitting import fit_classifier
from workers.training.examples import Examples
from workers.training.feeding import Origin


class PlainContext:
    """The epoch loop's view of a process of torchrun: the last checkpoint is kept in a folder."""

    device = "cpu"

    def __init__(self, folder: Path) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.ends: list[tuple[float, dict[str, float]]] = []
        self._kept = folder / "checkpoint"

    def report(self, metrics: Mapping[str, float], checkpoint_dir: Path | None) -> None:
        """Note the epoch's end and keep the first rank's checkpoint."""
        self.ends.append((time.monotonic(), dict(metrics)))
        if checkpoint_dir is not None:
            shutil.rmtree(self._kept, ignore_errors=True)
            shutil.copytree(checkpoint_dir, self._kept)
        dist.barrier()

    @contextmanager
    def load_checkpoint(self) -> Iterator[Path | None]:
        """There is none: every training starts anew."""
        yield None


def main() -> None:
    """One worker's whole training."""
    archive, epochs, folder = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    as_ray_worker()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    context = PlainContext(folder)
    examples = Examples(rows(archive), Fetcher().fetch)
    fit_classifier(config(epochs), examples, context, origin=Origin(), cache_bytes=CACHE_BYTES)
    if context.rank == 0:
        (folder / "ends.json").write_text(json.dumps(context.ends))
    dist.destroy_process_group()


if __name__ == "__main__":
    # Ray gives its workers one thread each; torchrun asks for the same by itself, but says so.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
