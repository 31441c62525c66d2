"""What is in the way of a job file on a cluster, and what each node says of itself."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import open_storage
from cluster.submission.preflight import Needs, Node, check
from cluster.submission.witness import NodeAnswer, Question, look, nonce_path, versions
from schemas.errors import UsageError
from schemas.specs import SPECS, JobSpec

OURS = {"python": "3.11.7", "ray": "2.60.0", "rayward": "0.1.0"}
GOOD = NodeAnswer("host", OURS, "same", "aabbccddeeff", ())


TWO = {"dataset": "a", "split": "s", "world_size": 2}
SIZES = {"processes": {"one": {"world_size": 1}, "two": {"world_size": 2}}}


def node(number: int = 1, cpus: float = 4, gpus: float = 0, **answer: Any) -> Node:
    return Node(f"10.0.0.{number}", cpus, gpus, replace(GOOD, **answer))


def job(kind: str = "ingest", **values: Any) -> JobSpec:
    needed: Mapping[str, Any] = {
        "ingest": {"source": "/data"},
        "train": {"dataset": "a", "split": "s", "model": "m"},
        "study": {"name": "s", "train": {"dataset": "a", "split": "s"}},
    }[kind]
    return SPECS[kind].model_validate({"kind": kind, **needed, **values})


def needs(*jobs: JobSpec, lake: str = "/lake", autoscaling: bool = False) -> Needs:
    return Needs(lake, jobs or (job(),), OURS, key=True, autoscaling=autoscaling)


def problems(wanted: Needs, *nodes: Node) -> list[str]:
    try:
        check(wanted, nodes)
    except UsageError as error:
        return [line.strip("- .") for line in error.what.splitlines()[1:]]
    return []


def test_a_cluster_that_fits_is_taken() -> None:
    assert problems(needs(), node(1), node(2)) == []
    assert problems(needs(), node(1, key="")) == []  # one machine makes its key at first use


@pytest.mark.parametrize(
    ("name", "theirs", "fits"),
    [
        ("python", "3.11.2", True),
        ("python", "3.12.7", False),
        ("ray", "2.60.1", False),
        ("rayward", "0.2.0", False),
    ],
)
def test_versions_must_agree(name: str, theirs: str, fits: bool) -> None:
    found = problems(needs(), node(1, versions={**OURS, name: theirs}))
    assert len(found) == (0 if fits else 1)
    for one in found:
        assert f"10.0.0.1 has {name} {theirs}, and {OURS[name]} is here" in one
        assert "same image" in one


def test_a_local_lake_on_two_nodes_names_the_remedy() -> None:
    (found,) = problems(needs(), node(1), node(2, lake="other"))
    assert found.startswith("the lake /lake is not the same place on node 10.0.0.2:")
    assert "s3://bucket/prefix" in found
    assert "mounted at the same path on every node" in found


def test_a_lake_on_s3_that_a_node_can_not_read_names_the_error() -> None:
    (found,) = problems(needs(lake="s3://b/l"), node(1, lake="PermissionDeniedError"))
    assert "(PermissionDeniedError)" in found
    assert "credentials" in found


def test_sources_must_be_on_every_node() -> None:
    (found,) = problems(needs(), node(1), node(2, missing=("/data",)))
    assert found.startswith("/data is not on node 10.0.0.2: use s3://")


def test_the_pseudonym_key_must_be_one_and_the_same() -> None:
    (found,) = problems(needs(), node(1), node(2, key=""))
    assert "key is missing on 10.0.0.2: mount one key file of mode 0600 on every node" in found
    (found,) = problems(needs(), node(1), node(2, key="001122334455"))
    assert "different pseudonym keys" in found
    (found,) = problems(needs(), node(1), node(2, key="The pseudonym key is open to others"))
    assert found == "node 10.0.0.2: The pseudonym key is open to others"
    assert problems(replace(needs(), key=False), node(1), node(2, key="")) == []


def test_a_node_that_gives_no_answer_is_named() -> None:
    silent = Node("10.0.0.2", 4, 0, None, "ModuleNotFoundError")
    (found,) = problems(needs(), node(1), silent)
    assert "10.0.0.2 gave no answer (ModuleNotFoundError): install Rayward 0.1.0" in found


@pytest.mark.parametrize(
    ("wanted", "nodes", "room"),
    [
        (job(), [node(1, cpus=0)], "1 processes of 1 CPU, and the cluster has room for 0"),
        (job(), [node(1, cpus=0), node(2, cpus=1)], None),  # a head without CPUs
        (job(execution={"workers": 64}), [node(1, cpus=1)], None),  # shards make do with fewer
        (job(execution={"gpus_per_worker": 1}), [node(1)], "1 CPU and 1 GPUs"),
        (job(execution={"gpus_per_worker": 0.5}), [node(1, gpus=1)], None),
        # Two halves on two nodes make no whole GPU.
        (
            job(execution={"gpus_per_worker": 1}),
            [node(1, gpus=0.5), node(2, gpus=0.5)],
            "room for 0",
        ),
        (job("train", world_size=3), [node(1, cpus=2)], "needs 3 processes of 1 CPU"),
        (job("train", world_size=3), [node(1, cpus=2), node(2, cpus=1)], None),
        (job("train", world_size=3, min_world_size=2), [node(1, cpus=2)], None),
        (job("train", world_size=3, min_world_size=3), [node(1, cpus=2)], "needs 3 processes"),
        (job("train", head="svm", start="bundle:m"), [node(1, cpus=1)], None),
        (job("study", gpus_per_trial=1), [node(1)], "job s needs 1 processes of 1 CPU and 1 GPUs"),
        (job("study", gpus_per_trial=1), [node(1), node(2, gpus=1)], None),
        (job("study", gpus_per_trial=1 / 3, train=TWO), [node(1, gpus=0.7)], None),
        (job("study", gpus_per_trial=1, train=TWO), [node(1, gpus=1)], "needs 2 processes"),
        (job("study", gpus_per_trial=1, grid=SIZES), [node(1, gpus=1)], "needs 2 processes"),
        # Without GPUs the processes of a trial share what is there.
        (job("study", train=TWO), [node(1, cpus=1)], None),
        (job("study"), [node(1, cpus=0)], "needs 1 processes of 1 CPU"),
    ],
)
def test_there_must_be_room(wanted: JobSpec, nodes: list[Node], room: str | None) -> None:
    found = problems(needs(wanted), *nodes)
    assert len(found) == (1 if room else 0)
    if room:
        assert room in found[0]
        assert "--autoscaling" in found[0]
    assert problems(needs(wanted, autoscaling=True), *nodes) == []


def test_everything_is_told_at_once() -> None:
    worst = node(1, cpus=0, lake="other", missing=("/data",), versions={**OURS, "ray": "2.9"})
    assert len(problems(needs(), worst)) == 4


def test_a_node_sees_the_lake_by_the_nonce(any_root: str) -> None:
    storage = open_storage(any_root)
    storage.put(nonce_path("abc"), b"abc")
    assert look(Question(any_root, "abc")).lake == "same"
    assert look(Question(any_root, "def")).lake == "other"
    storage.put(nonce_path("def"), b"something else")
    assert look(Question(any_root, "def")).lake == "other"


def test_looking_makes_no_lake(tmp_path: Path) -> None:
    assert look(Question(str(tmp_path / "lake"), "abc")).lake == "other"
    assert list(tmp_path.iterdir()) == []


def test_a_node_tells_of_versions_key_and_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    monkeypatch.setenv("RAYWARD_KEY_FILE", str(key))
    question = Question(str(tmp_path), "x", (str(tmp_path), str(tmp_path / "nowhere")))
    without = look(question)
    assert (without.key, without.missing) == ("", (str(tmp_path / "nowhere"),))
    assert without.versions == versions()
    assert without.versions["python"].startswith("3.")
    key.write_text("ab" * 32)
    key.chmod(0o600)
    found = look(question).key
    assert len(bytes.fromhex(found)) == 6
    assert found not in "ab" * 32
    key.chmod(0o644)
    assert "open to others" in look(question).key
    assert "abab" not in look(question).key


def test_answers_come_back_as_they_went() -> None:
    entry = {"address": "10.0.0.1", "cpus": 4.0, "gpus": 0.0, "error": "", "answer": asdict(GOOD)}
    assert Node.from_dict(entry) == node(1)
    assert Node.from_dict({**entry, "answer": None}).answer is None
