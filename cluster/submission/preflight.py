"""Whether a cluster can take a job file, judged from what its nodes answered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.submission.witness import NO_KEY, SAME, NodeAnswer
from schemas.errors import UsageError
from schemas.specs import JobSpec
from schemas.specs.pretrain import PretrainSpec
from schemas.specs.study import StudySpec
from schemas.specs.train import TrainSpec
from schemas.specs.train_detector import DetectorSpec
from schemas.studies import trials_of

_SHARED = "use s3://bucket/prefix, or one folder mounted at the same path on every node"


@dataclass(frozen=True)
class Node:
    """A node of the cluster, and its answer or why there is none."""

    address: str
    cpus: float
    gpus: float
    answer: NodeAnswer | None
    error: str = ""

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Node":
        """Read a node back from JSON values."""
        answer = values["answer"] and NodeAnswer.from_dict(values["answer"])
        return Node(**{**values, "answer": answer})


@dataclass(frozen=True)
class Needs:
    """What a submission needs of the cluster."""

    lake: str
    jobs: Sequence[JobSpec]
    versions: Mapping[str, str]
    """Ours, by name."""
    key: bool
    """Whether nodes read or write pseudonyms."""
    autoscaling: bool = False
    """The cluster adds nodes when it needs them: what is missing now may come."""


def check(needs: Needs, nodes: Sequence[Node]) -> None:
    """Make sure that the cluster can take the job file.

    Raises:
        UsageError: with everything that is in the way, each with its remedy.
    """
    problems = list(dict.fromkeys(_problems(needs, nodes)))
    if problems:
        lines = "\n".join(f"  - {one}" for one in problems)
        raise UsageError(f"The cluster can't take this job file:\n{lines}")


def _problems(needs: Needs, nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        if node.answer is None:
            yield (
                f"node {node.address} gave no answer ({node.error}): install Rayward {_ours(needs)}"
                " there, or remove the node"
            )
            continue
        yield from _of_versions(needs, node.address, node.answer)
        yield from _of_places(needs, node.address, node.answer)
    yield from _of_keys(needs, nodes)
    if not needs.autoscaling:
        yield from _of_slots(needs, nodes)


def _ours(needs: Needs) -> str:
    return needs.versions["rayward"]


def _of_versions(needs: Needs, address: str, answer: NodeAnswer) -> Iterator[str]:
    for name, ours in needs.versions.items():
        theirs = answer.versions[name]
        if _compared(name, theirs) != _compared(name, ours):
            yield (
                f"node {address} has {name} {theirs}, and {ours} is here: "
                "use the same image on both sides"
            )


def _compared(name: str, version: str) -> str:
    """Python's bug-fix releases fit each other."""
    return version.rpartition(".")[0] if name == "python" else version


def _of_places(needs: Needs, address: str, answer: NodeAnswer) -> Iterator[str]:
    if answer.lake != SAME:
        # Either a plain verdict or an error of the store.
        why = "" if answer.lake == "other" else f" ({answer.lake})"
        yield (
            f"the lake {needs.lake} is not the same place on node {address}{why}: "
            + (_SHARED if "://" not in needs.lake else "check bucket, endpoint and credentials")
        )
    for path in answer.missing:
        yield f"{path} is not on node {address}: {_SHARED}"


def _of_keys(needs: Needs, nodes: Sequence[Node]) -> Iterator[str]:
    answers = [(node.address, node.answer.key) for node in nodes if node.answer]
    broken = [(address, key) for address, key in answers if " " in key]
    for address, key in broken:
        yield f"node {address}: {key}"
    if len(nodes) < 2 or broken:
        return  # one machine makes its key at first use
    without = [address for address, key in answers if key == NO_KEY]
    if needs.key and without:
        yield (
            f"the pseudonym key is missing on {', '.join(without)}: mount one key file of mode 0600"
            " on every node and name it in RAYWARD_KEY_FILE"
        )
    if len({key for _, key in answers if key}) > 1:
        yield "nodes hold different pseudonym keys: mount the same key file on every node"


def _of_slots(needs: Needs, nodes: Sequence[Node]) -> Iterator[str]:
    grow = "add nodes, or say --autoscaling if the cluster does so by itself"
    for job in needs.jobs:
        for wanted, gpus in _wanted(job):
            slots = sum(_slots(node, gpus) for node in nodes)
            if slots >= wanted:
                continue
            each = f"1 CPU and {gpus:g} GPUs" if gpus else "1 CPU"
            yield (
                f"job {job.name} needs {wanted} processes of {each}, and the cluster has room for "
                f"{slots}: {grow}, or lower what the job asks for"
            )


def _wanted(job: JobSpec) -> Iterator[tuple[int, float]]:
    """The processes that a job can't begin without, and the GPUs of each; of a study, by trial."""
    gpus = job.execution.gpus_per_worker
    if isinstance(job, StudySpec):
        gpus = job.gpus_per_trial
        # Without GPUs the processes of one trial share what CPUs there are.
        sizes = {one.world_size if gpus else 1 for one in trials_of(job)}
        yield from ((size, gpus) for size in sorted(sizes))
    elif isinstance(job, TrainSpec):
        yield 1 if job.head == "svm" else job.min_world_size or job.world_size, gpus
    elif isinstance(job, PretrainSpec | DetectorSpec):
        yield job.world_size, gpus
    else:
        yield 1, gpus  # shards make do with fewer processes than asked for


def _slots(node: Node, gpus: float) -> int:
    # A third of a GPU fits three times, whatever floating point says.
    return min(int(node.cpus), int(node.gpus / gpus + 1e-6)) if gpus else int(node.cpus)
