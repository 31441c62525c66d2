"""A run killed half-way and started again, against one that nobody disturbs."""

import json
import os
import shutil
import signal
import statistics
import subprocess
from pathlib import Path

import psutil

from benchmarks.archive import make_archive
from benchmarks.harness import Bar, Context, Figure, figure
from benchmarks.processes import RAYWARD, Usage, run
from cluster.lake.store import LakeStore

BAR = Bar(0.55, "x")
IMAGES, SIDE_PX = 16_000, 512
_SHARD_IMAGES = 200
_PATIENCE_S = 30
_ROWS = "SELECT * EXCLUDE (run_id) FROM quality WHERE dataset = 'many' ORDER BY ALL"


def measure(context: Context) -> list[Figure]:
    """Clean an archive whole, and once more with a SIGKILL of the driver at half of the receipts.

    Start-up is what the same command takes over eight images. The tables of both lakes are equal
    row by row.
    """
    count = context.count(IMAGES, least=800)
    many, few = context.directory / "many", context.directory / "few"
    for folder, images in ((many, count), (few, 8)):
        folder.mkdir(parents=True)
        make_archive(folder, images, SIDE_PX)
    base = context.directory / "base"
    file = _job_file(context.directory, many, few)
    _run(file, base, "many", "few")
    rounds = max(2, min(3, context.rounds))
    start, whole, again, left = [], [], [], []
    expected = None
    for number in range(rounds):
        lakes = [_copy(base, context.directory / f"lake-{number}-{n}") for n in range(2)]
        start.append(_run(file, lakes[0], "few-check"))
        whole.append(_run(file, lakes[0], "many-check"))
        after, share = _killed_and_again(file, lakes[1], -(-count // _SHARD_IMAGES))
        again.append(after)
        left.append(share)
        tables = [LakeStore.open(str(lake)).query(_ROWS) for lake in lakes]
        expected = expected or tables[0]
        assert tables[0].num_rows == count
        assert all(table.equals(expected) for table in tables)
        for lake in lakes:
            shutil.rmtree(lake)
    begin = statistics.median(one.wall_s for one in start)
    # What workers finished after the kill, before they noticed it, is no merit of the second call.
    ratios = [
        (after.wall_s - begin) / (alone.wall_s - begin) + max(0.0, 0.5 - share)
        for after, alone, share in zip(again, whole, left, strict=True)
    ]
    cpu = statistics.median(one.cpu_s for one in start)
    return [
        figure(
            "a run killed at half of its shards and started again, beyond start-up",
            BAR,
            ratios,
            images=count,
            whole_s=[one.wall_s for one in whole],
            again_s=[one.wall_s for one in again],
            share_left=left,
            start_s=[one.wall_s for one in start],
            ratios_of_cpu=[
                (after.cpu_s - cpu) / (alone.cpu_s - cpu)
                for after, alone in zip(again, whole, strict=True)
            ],
        )
    ]


def _job_file(folder: Path, many: Path, few: Path) -> Path:
    jobs: list[dict[str, object]] = []
    for name, source in (("many", many), ("few", few)):
        jobs.append({"kind": "ingest", "name": name, "source": str(source), "modality": "CR"})
        execution = {"shard_images": _SHARD_IMAGES}
        jobs.append(
            {"kind": "clean", "name": f"{name}-check", "dataset": name, "execution": execution}
        )
    file = folder / "jobs.yaml"
    file.write_text(json.dumps({"jobs": jobs}))  # JSON is YAML
    return file


def _command(file: Path, lake: Path, *names: str) -> list[str]:
    only = [word for name in names for word in ("--only", name)]
    return [RAYWARD, "run", str(file), "--lake", str(lake), "--json", *only]


def _run(file: Path, lake: Path, *names: str) -> Usage:
    return run(_command(file, lake, *names))


def _killed_and_again(file: Path, lake: Path, shards: int) -> tuple[Usage, float]:
    """Kill the driver when half of the shards have receipts, and call it again.

    Returns the second call's usage, and the share of the shards that was left for it.
    """
    started = set(lake.glob("_runs/*"))
    workers: list[psutil.Process] = []

    def receipts() -> int:
        new = set(lake.glob("_runs/*")) - started
        return sum(1 for one in new for _ in one.glob("shards/*.json"))

    def kill_at_half(process: "subprocess.Popen[str]") -> None:
        if not workers and receipts() >= shards / 2:
            workers.extend(psutil.Process(process.pid).children(recursive=True))
            os.kill(process.pid, signal.SIGKILL)  # Popen.kill would take the exit code away

    usage = run(_command(file, lake, "many-check"), watch=kill_at_half, every_s=0.05, check=False)
    assert usage.code == -signal.SIGKILL, usage.stderr[-500:]
    # Ray's processes notice that their driver is gone; nobody starts a command within that second.
    psutil.wait_procs(workers, timeout=_PATIENCE_S)
    left = 1 - receipts() / shards
    usage = _run(file, lake, "many-check")
    told = json.loads(usage.lines[-1].text)
    assert told["counts"]["done"] == told["counts"]["input"], told
    return usage, left


def _copy(lake: Path, copy: Path) -> Path:
    return Path(shutil.copytree(lake, copy))
