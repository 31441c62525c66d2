"""Kills, races and poison: the tables come out as if nothing had happened."""

import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.cluster.whole.conftest import Place

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("whole")]

CLEAN_AGAIN = ("--only", "clean", "--set", "clean.min_contrast=1.5")
"""Cleaning by other rules: all images again, in ten shards."""
SCORE = ("--only", "score")
"""In a lake without predictions: all kept images, in several shards."""

_POISONED_DECODER = '''
import importlib.abc, os, signal, sys

class Finder(importlib.abc.MetaPathFinder):
    """Makes the decoder of this test's poison end its process, as a broken C decoder would."""

    def find_spec(self, name, path=None, target=None):
        if name != "workers.pixels.decode":
            return None
        sys.meta_path.remove(self)
        spec = __import__("importlib.util").util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            open_image = module.open_image

            def open_poisoned(data, *arguments, **named):
                if data.endswith(b"poison"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return open_image(data, *arguments, **named)

            module.open_image = open_poisoned

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
'''


def scores_of(place: Place) -> dict[str, list[float]]:
    return {row["image_id"]: row["scores"] for row in place.table("predictions")}


def assert_equal_scores(one: dict[str, list[float]], other: dict[str, list[float]]) -> None:
    assert one.keys() == other.keys()
    for image_id, scores in one.items():
        assert scores == pytest.approx(other[image_id], abs=1e-6)


def kill_tree(process: subprocess.Popen[str], victim: str, chance: random.Random) -> None:
    """SIGKILL the driver, or one of its computing workers."""
    if victim == "driver":
        process.send_signal(signal.SIGKILL)
        return
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.name().startswith("ray::ShardProcess") or "ShardProcess" in child.name()
    ]
    if workers:
        chance.choice(workers).send_signal(signal.SIGKILL)


def disturbed_run(place: Place, arguments: tuple[str, ...], seed: int, victim: str) -> bool:
    """Start a run, kill at a random moment, run again; says whether the kill hit."""
    chance = random.Random(seed)
    process = place.start("run", "job.yaml", *arguments)
    # From the start of the command to well after its last shard.
    deadline = time.monotonic() + chance.uniform(1.0, 9.0)
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    hit = process.poll() is None
    if hit:
        kill_tree(process, victim, chance)
    process.communicate(timeout=200)
    if victim == "driver" and hit:
        assert process.returncode == -signal.SIGKILL
    place.run("job.yaml", *arguments)
    return hit


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", ["clean", "score"])
def test_kills_at_ten_random_moments(done: Place, tmp_path: Path, kind: str) -> None:
    arguments = CLEAN_AGAIN if kind == "clean" else SCORE
    table = "quality" if kind == "clean" else "predictions"
    without = ("predictions",) if kind == "score" else ()
    undisturbed = done.with_lake(tmp_path / "undisturbed", without=without)
    undisturbed.run("job.yaml", *arguments)
    expected, rejects = undisturbed.table(table), undisturbed.table("rejects")
    hits = 0
    for seed in range(10):
        place = done.with_lake(tmp_path / f"{seed}", without=without)
        victim = ("driver", "worker")[seed % 2]
        hits += disturbed_run(place, arguments, seed, victim)
        if kind == "score":
            assert_equal_scores(scores_of(place), scores_of(undisturbed))
            assert len(place.table(table)) == len(expected)
        else:
            assert place.table(table) == expected
        assert place.table("rejects") == rejects
    assert hits >= 5


def test_a_killed_driver_is_followed_by_one_that_goes_on(done: Place, tmp_path: Path) -> None:
    undisturbed, place = done.with_lake(tmp_path / "one"), done.with_lake(tmp_path / "two")
    undisturbed.run("job.yaml", *CLEAN_AGAIN)
    process = place.start("run", "job.yaml", *CLEAN_AGAIN)
    wait_for_receipts(place, 2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=100)
    (unfinished,) = [line for line in place.call("status").stdout.splitlines() if "unfin" in line]
    (report,) = place.run("job.yaml", *CLEAN_AGAIN)
    assert report["run_id"] in unfinished
    assert place.table("quality") == undisturbed.table("quality")


def wait_for_receipts(place: Place, count: int) -> None:
    runs = place.lake / "_runs"
    before = set(runs.glob("*/shards/*.json"))
    deadline = time.monotonic() + 120
    while len(set(runs.glob("*/shards/*.json")) - before) < count:
        assert time.monotonic() < deadline, "no receipts came"
        time.sleep(0.01)


@pytest.mark.slow
def test_of_two_runs_at_once_one_is_turned_away(done: Place, tmp_path: Path) -> None:
    place = done.with_lake(tmp_path / "race", without=("predictions",))
    first = place.start("run", "job.yaml", *SCORE)
    second = place.start("run", "job.yaml", *SCORE)
    outputs = [process.communicate(timeout=250) for process in (first, second)]
    codes = sorted(process.returncode for process in (first, second))
    assert codes == [0, 5], outputs
    loser = outputs[0] if first.returncode == 5 else outputs[1]
    assert "holds this work" in loser[1] or "took this work" in loser[1]
    images = [row["image_id"] for row in place.table("predictions")]
    assert len(images) == len(set(images))
    assert len(images) == len(place.query("SELECT image_id FROM kept_images"))


@pytest.mark.slow
def test_an_image_that_kills_its_decoder_is_rejected_alone(done: Place, tmp_path: Path) -> None:
    place = done.with_archive(tmp_path / "poisoned")
    (place.folder / "patch").mkdir()
    (place.folder / "patch/sitecustomize.py").write_text(_POISONED_DECODER)
    innocent = sorted((place.folder / "phantoms/images").rglob("*.png"))[0]
    planted = innocent.with_name("planted.png")
    planted.write_bytes(innocent.read_bytes() + b"poison")
    # Ingest reads it without harm; the decoder that scoring uses dies of it.
    place.run("job.yaml", "--only", "other")
    everything = (*SCORE, "--set", "score.images=all")
    (report,) = place.run("job.yaml", *everything, PYTHONPATH=str(place.folder / "patch"))
    assert report["counts"]["rejected"] == 1
    (reject,) = place.query("SELECT * FROM rejects WHERE stage = 'score'")
    assert reject["reason"] == "crashed_worker"
    assert reject["uri"].endswith("planted.png")
    everyone = {
        row["image_id"]
        for row in place.query("SELECT image_id FROM current_images WHERE dataset = 'other'")
    }
    scored = {row["image_id"] for row in place.query("SELECT image_id FROM predictions")}
    assert everyone - scored == {reject["image_id"]}
    # The reject stands: the next night is quiet.
    (again,) = place.run("job.yaml", *everything)
    assert again["status"] == "up_to_date"


@pytest.mark.slow
def test_a_reader_sees_nothing_of_a_run_until_it_is_published(done: Place, tmp_path: Path) -> None:
    from cluster.lake.store import LakeStore

    place = done.with_lake(tmp_path / "read")
    store = LakeStore.open(str(place.lake))
    count = "SELECT count(*) AS n FROM quality"
    before = store.query(count)["n"][0].as_py()
    seen: list[int] = []
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            seen.append(store.query(count)["n"][0].as_py())

    reader = threading.Thread(target=poll)
    reader.start()
    place.run("job.yaml", *CLEAN_AGAIN)
    over.set()
    reader.join()
    after = store.query(count)["n"][0].as_py()
    assert after > before
    assert set(seen) <= {before, after}
    assert len(seen) > 10
    assert seen == sorted(seen)


@pytest.mark.slow
def test_files_that_change_during_a_run_are_rejected(done: Place, tmp_path: Path) -> None:
    place = done.with_archive(tmp_path / "changing")
    images = sorted((place.folder / "phantoms/images").rglob("*.png"))
    process = place.start("run", "job.yaml", "--only", "clean")
    plans = place.lake / "_runs"
    known = set(plans.iterdir())
    deadline = time.monotonic() + 60
    while not [run for run in set(plans.iterdir()) - known if (run / "plan.parquet").exists()]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for path in images:  # after planning, before Ray has started
        path.write_bytes(path.read_bytes() + b"\0")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 3, out + err
    changed = place.query("SELECT DISTINCT reason FROM rejects WHERE stage = 'clean'")
    assert changed == [{"reason": "changed_during_run"}]
