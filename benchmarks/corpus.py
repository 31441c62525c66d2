"""A whole corpus of phantoms through one job file, and the night after it."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import Bar, Context, Figure
from benchmarks.night import Night, tomorrow
from benchmarks.processes import RAYWARD, ROOT, Usage, run
from cluster.lake.store import LakeStore
from schemas.jobfile import load
from schemas.specs.phantoms import PhantomsSpec

IMAGES, TENTH, FEW = 84_000, 8_400, 300
COST = Bar(1.3, "%")
GROWTH = Bar(200, "MB")
_FILE = ROOT / "studies" / "corpus.yaml"
_LESSONS = ("lesson-files", "lessons", "lesson-check", "lesson-split", "lesson-model")
_COUNTED = ("corpus", "check", "pixels", "parts", "scores")
"""The jobs whose cost counts: making the files and the model is no part of a night."""
_SHARES = (0.1, 0.5, 1.0)
_MANY_REJECTS = 3
"""The exit code of a run that is done, with more rejects than a job allows."""


def measure(context: Context) -> list[Figure]:
    """84,000 phantoms in one run, then a night with 1 % new and 0.1 % changed files.

    Beside it a tenth of the corpus, for the driver's memory, and a few hundred images whose night
    brings two files: what that costs is start-up.
    """
    context.directory.mkdir(parents=True, exist_ok=True)
    base = JobFileRun(context.directory / "base", FEW)
    base.run(_LESSONS)
    few, small, large = (
        JobFileRun(context.directory / str(count), count, base)
        for count in (FEW, context.count(TENTH, least=600), context.count(IMAGES, least=1200))
    )
    bulk = {}
    for one in (few, small, large):
        bulk[one.count] = first = one.run()
        context.say(f"{one.count:,}: {first.usage.wall_s:.0f} s, {first.usage.peak_mb:.0f} MB")
    tomorrow(few.archive, few.spec, new=2, changed=0)
    start = few.run()
    night = tomorrow(large.archive, large.spec, large.count // 100, max(1, large.count // 1000))
    second = large.run()
    _check_night(large, bulk[large.count], second, night)
    return [
        _flatness(bulk[small.count], bulk[large.count]),
        _cost(bulk[large.count], second, start, bulk[few.count]),
        _wall(bulk[large.count], large.count),
    ]


@dataclass
class Told:
    """One call of the command: what its jobs reported and what it used."""

    usage: Usage
    jobs: list[dict[str, Any]]
    memory: Mapping[str, Mapping[str, float]]
    """MB of the driver at shares of the shards, by run."""

    def counts(self, name: str) -> Mapping[str, int]:
        """What one job counted."""
        found: Mapping[str, int] = self.job(name)["counts"]
        return found

    def job(self, name: str) -> dict[str, Any]:
        """What one job reported."""
        return next(job for job in self.jobs if job["name"] == name)

    def cpu_by_job(self) -> dict[str, float]:
        """CPU seconds of the whole tree, from the end of the job before to the end of each."""
        found, before = {}, 0.0
        for line, job in zip(self.usage.lines, self.jobs, strict=True):
            found[job["name"]] = line.cpu_s - before
            before = line.cpu_s
        return found

    def counted_cpu_s(self) -> float:
        """CPU seconds of the jobs that count."""
        return sum(used for name, used in self.cpu_by_job().items() if name in _COUNTED)


class JobFileRun:
    """`studies/corpus.yaml` over an archive and a lake of their own."""

    def __init__(self, folder: Path, count: int, base: "JobFileRun | None" = None) -> None:
        self.count = count
        self.lake, self.archive = folder / "lake", folder / "corpus"
        self.env: dict[str, str] = {
            "LAKE": str(self.lake),
            "CORPUS": str(self.archive),
            "LESSONS": base.env["LESSONS"] if base else str(folder / "lessons"),
            "COUNT": str(count),
        }
        if base:
            shutil.copytree(base.lake, self.lake)

    @property
    def spec(self) -> PhantomsSpec:
        """How the archive was made."""
        jobs = load(_FILE, env=os.environ | self.env).jobs
        spec = next(one for one in jobs if one.name == "files")
        assert isinstance(spec, PhantomsSpec)
        return spec

    def run(self, only: Sequence[str] = ()) -> Told:
        """Run the jobs.

        Raises:
            RuntimeError: if one fails, or its counts do not add up.
        """
        command = [RAYWARD, "run", str(_FILE), "--json"]
        command += [word for name in only for word in ("--only", name)]
        memory = _Memory(self.lake)
        usage = run(command, env=self.env, every_s=0.2, watch=memory, check=False)
        if usage.code not in (0, _MANY_REJECTS):
            raise RuntimeError(f"exit code {usage.code}: {usage.stderr[-1500:]}")
        jobs = [json.loads(line.text) for line in usage.lines]
        for job in jobs:
            counts = dict(job["counts"])
            if counts.pop("input") != sum(counts.values()):
                raise RuntimeError(f"the counts do not add up: {job}")
        runs = [job["run_id"] for job in jobs if job["run_id"]]
        return Told(usage, jobs, {run_id: memory.at_shares(run_id) for run_id in runs})


@dataclass
class _Memory:
    """Resident memory of the driver against the receipts of the run it is at."""

    lake: Path
    seen: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def __call__(self, process: "subprocess.Popen[str]") -> None:
        try:
            newest = max((self.lake / "_runs").iterdir()).name
            done = sum(1 for _ in (self.lake / "_runs" / newest / "shards").iterdir())
            rss_mb = psutil.Process(process.pid).memory_info().rss / 2**20
        except (OSError, ValueError, psutil.Error):  # no run yet
            return
        self.seen.setdefault(newest, []).append((done, round(rss_mb, 1)))

    def at_shares(self, run_id: str) -> dict[str, float]:
        """MB when a tenth, half and all of the run's receipts were there, and at most."""
        seen = self.seen.get(run_id, [])
        most = max((done for done, _ in seen), default=0)
        found = {"peak": max((rss for _, rss in seen), default=0.0)}
        for share in _SHARES:
            then = [rss for done, rss in seen if done >= share * most]
            if then:
                found[f"{share:.0%}"] = then[0]
        return found


def _check_night(archive: JobFileRun, bulk: Told, second: Told, night: Night) -> None:
    """Make sure that the night did the new and the changed files, and nothing else.

    Raises:
        RuntimeError: if a count differs from what the lake's rows say by other means.
    """
    old = int(bulk.counts("corpus")["input"])
    ingest = second.counts("corpus")
    touched = len(night.new) + len(night.changed)
    _same("files to read", ingest["done"] + ingest["rejected"], touched)
    _same("files left alone", ingest["up_to_date"], old - len(night.changed))
    ids = LakeStore.open(str(archive.lake)).query(
        "SELECT count(DISTINCT image_id) AS n FROM images WHERE run_id = $run AND image_id NOT IN "
        "(SELECT image_id FROM images WHERE run_id < $run AND dataset = 'corpus')",
        {"run": second.job("corpus")["run_id"]},
    )
    fresh = int(ids["n"][0].as_py())
    _same("images to clean", sum(_worked_on(second, "check")), fresh)
    kept = LakeStore.open(str(archive.lake)).query(
        "SELECT count(*) AS n FROM quality WHERE run_id = $run AND kept",
        {"run": second.job("check")["run_id"]},
    )
    for name in ("pixels", "scores"):
        _same(f"images of {name}", sum(_worked_on(second, name)), int(kept["n"][0].as_py()))


def _worked_on(told: Told, name: str) -> tuple[int, int]:
    counts = told.counts(name)
    return counts["done"], counts["rejected"]


def _same(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(f"{what}: {found}, expected {expected}")


def _flatness(small: Told, large: Told) -> Figure:
    """How much more the driver held for ten times the images."""
    peaks = {
        name: {job["name"]: told.memory[job["run_id"]] for job in told.jobs if job["run_id"]}
        for name, told in (("small", small), ("large", large))
    }
    return Figure(
        f"driver's peak memory, {large.counts('corpus')['input']:,} images above "
        f"{small.counts('corpus')['input']:,}",
        large.usage.peak_mb - small.usage.peak_mb,
        "MB",
        GROWTH,
        details={
            "peak_mb": {"small": small.usage.peak_mb, "large": large.usage.peak_mb},
            "mb_at_share_of_shards": peaks,
        },
    )


def _cost(bulk: Told, second: Told, start: Told, few: Told) -> Figure:
    """The night's CPU seconds as a share of the whole corpus's, both beyond start-up.

    The start-up of a night is what a night with two new files costs over a few hundred images; that
    of the first run, whose Ray was up already, is what its jobs cost for a few hundred images.
    """
    full = bulk.counted_cpu_s() - few.counted_cpu_s()
    cost = second.usage.cpu_s - start.usage.cpu_s
    return Figure(
        "a night with 1 % new and 0.1 % changed, CPU beyond start-up against the whole corpus",
        100 * cost / full,
        "%",
        COST,
        details={
            "whole_cpu_s": bulk.counted_cpu_s(),
            "whole_cpu_s_by_job": bulk.cpu_by_job(),
            "whole_start_cpu_s": few.counted_cpu_s(),
            "night_cpu_s": second.usage.cpu_s,
            "night_cpu_s_by_job": second.cpu_by_job(),
            "night_driver_cpu_s": second.usage.own_cpu_s,
            "night_wall_s": second.usage.wall_s,
            "night_jobs": second.jobs,
            "night_start_cpu_s": start.usage.cpu_s,
            "night_start_cpu_s_by_job": start.cpu_by_job(),
            "night_start_driver_cpu_s": start.usage.own_cpu_s,
            "share_with_start_up": 100 * second.usage.cpu_s / bulk.counted_cpu_s(),
        },
    )


def _wall(bulk: Told, count: int) -> Figure:
    jobs = [job for job in bulk.jobs if job["name"] in _COUNTED]
    took = {job["name"]: sum(job["seconds"].values()) for job in jobs}
    return Figure(
        f"ingest, clean, prepare, split and score of {count:,} phantoms",
        sum(took.values()),
        "s",
        details={
            "seconds": took,
            "images_per_s": {name: count / seconds for name, seconds in took.items()},
            "cpu_ms_per_image": {
                name: 1000 * used / count for name, used in bulk.cpu_by_job().items()
            },
            "jobs": bulk.jobs,
        },
    )
