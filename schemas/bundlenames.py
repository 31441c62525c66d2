"""Names of the bundles that jobs make: two jobs of a file must not write versions of one."""

from collections.abc import Mapping

from schemas.errors import Mistake
from schemas.jobtree import NAMELESS
from schemas.specs import JobSpec
from schemas.specs.pretrain import PretrainSpec
from schemas.specs.study import StudySpec
from schemas.specs.train import TrainSpec
from schemas.specs.train_detector import DetectorSpec
from schemas.yamltree import Node, Path

_TRAININGS = (TrainSpec, DetectorSpec, PretrainSpec)
"""Jobs that make one bundle, named in their field `model`."""


def check_bundle_names(
    nodes: Mapping[str, Node], jobs: Mapping[str, JobSpec | None]
) -> list[Mistake]:
    """Find jobs that would make a bundle another job makes.

    Each would find the other's version as the newest and train again, whenever the file is run.
    Jobs that are wrong for another reason are None.
    """
    made: dict[str, str] = {}
    mistakes = []
    for name, job in jobs.items():
        path: Path = (name,) if name.startswith(NAMELESS) else ("jobs", name)
        twice = {}
        for bundle, who in _bundles(job).items():
            if bundle in made:
                twice[bundle] = made[bundle]
            made.setdefault(bundle, f"{name} ({who})" if who else name)
        if twice:
            mistakes.append(_mistake(nodes[name], path, job, twice))
    return mistakes


def _bundles(job: JobSpec | None) -> dict[str, str]:
    """Names of the bundles a job makes, with the trial that makes each."""
    if isinstance(job, _TRAININGS):
        return {job.model: ""}
    return dict(job.bundles) if isinstance(job, StudySpec) else {}


def _mistake(node: Node, path: Path, job: JobSpec | None, twice: Mapping[str, str]) -> Mistake:
    bundle, other = next(iter(twice.items()))
    more = f", and {len(twice) - 1} more" if len(twice) > 1 else ""
    what = f"makes the bundle {bundle}, which {other} makes, too{more}"
    field = "model" if isinstance(job, _TRAININGS) else "name"
    allowed = "a name of its own for each bundle; a study's are its name and its labels"
    return node.find((field,)).mistake((*path, field), what, allowed=allowed)
