"""Which jobs of a file need what an earlier one makes, by what their specs name."""

from collections.abc import Iterator, Sequence
from typing import Any

from schemas.specs import JobSpec
from schemas.specs.annotate import AnnotateSpec
from schemas.specs.clean import CleanSpec
from schemas.specs.embed import EmbedSpec
from schemas.specs.ingest import IngestSpec
from schemas.specs.phantoms import PhantomsSpec
from schemas.specs.prepare import PrepareSpec
from schemas.specs.pretrain import PretrainSpec
from schemas.specs.score import NIGHTLY, ScoreSpec
from schemas.specs.split import SplitSpec
from schemas.specs.train import TrainSpec
from schemas.specs.train_detector import DetectorSpec

_CATALOGUE = frozenset({"phantoms", "ingest", "annotate"})
"""Kinds that come before a data set's images are looked at."""
_READ_PIXELS = frozenset({"train", "train_detector", "pretrain", "embed", "score", "study"})
_USE_SCORES = frozenset({"train", "evaluate", "evaluate_detector", "explain", "review"})


def direct_needs(spec: JobSpec, earlier: Sequence[JobSpec]) -> list[JobSpec]:
    """The earlier jobs that a job needs, in their order, less those that these need themselves."""
    needed = [one for one in earlier if _needs(spec, one)]
    return [
        one
        for place, one in enumerate(needed)
        if not any(_leads(one, later, earlier) for later in needed[place + 1 :])
    ]


def _leads(one: JobSpec, later: JobSpec, jobs: Sequence[JobSpec]) -> bool:
    """Whether ``later`` needs ``one``, itself or through others."""
    between = jobs[: jobs.index(later)]
    return any(need is one or _leads(one, need, between) for need in between if _needs(later, need))


def _needs(spec: JobSpec, earlier: JobSpec) -> bool:
    """Whether a job takes what an earlier one makes."""
    named = set(_texts(spec.model_dump(exclude={"kind", "name"})))
    match earlier:
        case PhantomsSpec():
            return spec.kind in _CATALOGUE and any(one.startswith(earlier.target) for one in named)
        case IngestSpec():
            makes = {earlier.dataset}
        case AnnotateSpec():
            makes = {earlier.source}
        case SplitSpec():
            makes = {earlier.split_name}
        case CleanSpec() if spec.kind not in _CATALOGUE:
            makes = {earlier.dataset}
        case PrepareSpec() if spec.kind in _READ_PIXELS:
            makes = {earlier.dataset}
        case ScoreSpec() | EmbedSpec() if spec.kind in _USE_SCORES and earlier.dataset in named:
            makes = {earlier.model}
        case TrainSpec() | DetectorSpec() | PretrainSpec():
            nightly = not isinstance(earlier, PretrainSpec) and earlier.nightly
            named |= {one.removeprefix("bundle:").partition("@")[0] for one in named}
            makes = {earlier.model, *([NIGHTLY] if nightly else [])}
        case _:
            makes = set()
    return not named.isdisjoint(makes)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a spec's values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
