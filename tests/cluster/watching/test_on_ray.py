"""On real Rays: metrics as their port shows them, shards that stand still, clusters that grow."""

import io
import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster import shard_crew, shard_run
from cluster.lake.store import LakeStore
from cluster.progress import Progress
from cluster.shard_run import ShardRun
from cluster.watching.metrics import exported_names
from schemas.specs.base import Execution
from tests.cluster.lake.toy import ids
from tests.cluster.watching.toys import ToyProbe, ToyShards, begun, nodes_in, toy_plan

STORE = 80 * 2**20

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_crew, "ShardProcess", ToyShards)
    monkeypatch.setattr(shard_run, "ProbeProcess", ToyProbe)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ray's own folder."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def metrics_port(folder: Path) -> Iterator[int]:
    """A Ray of two CPUs whose processes log in JSON; where its metrics are."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYWARD_LOG", "json")
        ray.init(
            num_cpus=2,
            object_store_memory=STORE,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=str(folder),
            _metrics_export_port=port,
        )
    yield port
    ray.shutdown()


def scraped(port: int) -> dict[str, float]:
    """Rayward's series, by name and those labels that are ours."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    series: dict[str, float] = {}
    for line in text.splitlines():
        found = re.fullmatch(r"(ray_rayward_\w+)\{(.*)\} (\S+)", line)
        if found:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', found[2]))
            ours = ("kind", "job", "stage", "reason", "cause", "le")
            named = ",".join(labels[one] for one in ours if one in labels)
            series[f"{found[1]}{{{named}}}"] = float(found[3])
    return series


def test_a_shard_that_stands_still_is_named_ended_and_its_image_rejected(
    metrics_port: int, folder: Path, tmp_path: Path
) -> None:
    images = ids(8)
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    plan = toy_plan(images, 2, {"hang": images[5]})
    execution = Execution(workers=1, stall_minutes=0.02, stall_kill_minutes=0.1)
    said = io.StringIO()
    with store.lease(plan.key):
        run = begun(store, plan)
        progress = Progress(said)
        progress.start("toy", 8, "images")
        ShardRun(store.root, run, execution, progress).compute(run.pending())
        outcomes = run.outcomes()
    assert (outcomes.done, outcomes.rejected) == (7, 1)
    assert re.search(
        r"toy: shard 00001 has stood still for [\d.]+ s, in the stage decode\n", said.getvalue()
    )
    assert said.getvalue().count("; its process is ended") == 2
    cost = run.receipts()["00000"].cost
    assert cost is not None and 0 < cost.cpu_s < 30 and cost.gpu_s == 0

    files = (folder / "session_latest" / "logs").glob("worker-*.err")
    lines = [line for one in files for line in one.read_text().splitlines() if "shard done" in line]
    logged = {told["shard"]: told for told in map(json.loads, lines)}
    assert logged["00000"]["done"] == 4 and logged["00001"]["rejected"] == 1
    assert logged["00000"]["run_id"] == run.id and logged["00000"]["job"] == "toy"
    assert logged["00000"]["node"] == ray.get_runtime_context().get_node_id()

    # Processes report every ten seconds.
    deadline, series = time.monotonic() + 60, scraped(metrics_port)
    while series.get("ray_rayward_images_total{clean,toy}") != 7 and time.monotonic() < deadline:
        time.sleep(1)
        series = scraped(metrics_port)
    assert series["ray_rayward_images_total{clean,toy}"] == 7
    assert series["ray_rayward_rejects_total{clean,toy,crashed_worker}"] == 1
    assert series["ray_rayward_deaths_total{clean,toy,stall}"] == 2
    assert series["ray_rayward_stalls_total{clean,toy,decode}"] == 2
    assert series["ray_rayward_shard_seconds_count{clean,toy}"] == 2
    assert series["ray_rayward_stage_seconds_total{clean,toy,write}"] > 0
    # No GPU, no bytes: those two are not counted here.
    shown = {name.partition("{")[0] for name in series}
    absent = {"ray_rayward_gpu_busy_share", "ray_rayward_bytes_read_total"}
    assert exported_names() - absent <= shown <= exported_names()


@pytest.mark.parametrize("promised", [False, True])
def test_a_run_uses_a_node_that_joins_while_it_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promised: bool
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    images = ids(12)
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    plan = toy_plan(images, 12, {"notes": str(notes)})
    if promised:
        monkeypatch.setenv("RAYWARD_SLOTS", "3")
    execution = Execution(workers=3 if promised else None)
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(cluster.address, log_to_driver=False)

    try:
        # Nodes can only be added by the main thread.
        with store.lease(plan.key), ThreadPoolExecutor(1) as aside:
            run = begun(store, plan)
            work = ShardRun(store.root, run, execution, Progress(io.StringIO()))
            computed = aside.submit(work.compute, run.pending())
            while len(nodes_in(notes)) < 3 and not computed.done():
                time.sleep(0.1)
            cluster.add_node(num_cpus=2, object_store_memory=STORE)
            computed.result()
            assert run.outcomes().done == 12
    finally:
        ray.shutdown()
        cluster.shutdown()
    by_node = nodes_in(notes)
    assert len(set(by_node)) == 2
    assert len(by_node) == 12, "a shard was computed twice"
