"""Job files: one YAML file says which jobs run, in which order, on which lake.

::

    lake: ${LAKE:-./lake}             # a path or s3://bucket/prefix
    jobs:                             # run in this order
      - kind: ingest
        name: kermany                 # the kind when not given; two jobs of a kind need names
        source: ${DATA:-../shared/data}/cxr-kermany
      - kind: train
        dataset: kermany
        split: kermany-split          # what a split job without a name makes of kermany
        model: pneumonia
        epochs: 12
    night: {closes: "06:00"}          # when a run of the file is late; `schemas.specs.night`
    notify: {on: [failed, held]}      # who is told what
    profiles:                         # chosen with --profile NAME; replace the values above
      smoke:
        lake: ./lake-smoke            # sections like `night` too
        jobs:
          train: {epochs: 1}          # a job's name or, where no job has it, a kind: all of them

- ``${NAME}`` and ``${NAME:-default}`` expand from the environment in every value; a default also
  replaces an empty variable. An undefined variable without a default is a mistake. An unquoted
  value is read as YAML after expansion, so ``epochs: ${EPOCHS:-12}`` is a number; within ``{ }``
  and ``[ ]`` YAML wants it in quotes, which make it text. ``$${`` stands for a literal ``${``.
- A profile's mappings are merged entry by entry, however deep; lists and single values replace.
- ``--set train.optimizer.learning_rate=1e-4`` (or ``jobs.train...``, or ``lake=...``) replaces one
  value after that; what follows ``=`` is read as YAML.
- Credentials never stand in a job file; they come from the environment, a profile or a role.
- Paths are relative to where the command runs.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schemas.bundlenames import check_bundle_names
from schemas.errors import JobFileError, Mistake, UsageError
from schemas.jobcheck import check_job, check_lake, check_section
from schemas.jobtree import SECTIONS, TOP_FIELDS, JobTree, hint, job_tree, profiles_of, shown
from schemas.specs import JobSpec
from schemas.specs.night import NightSpec, NotifySpec
from schemas.yamltree import Expansion, Node, parse


@dataclass(frozen=True)
class JobFile:
    """A valid job file: the lake, the jobs in their order, and what is said of all of them."""

    lake: str
    jobs: tuple[JobSpec, ...]
    path: str
    night: NightSpec = field(default_factory=NightSpec)
    notify: NotifySpec | None = None
    """Nobody is told where the file has no such section."""


def load(
    path: str | os.PathLike[str],
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    lake: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> JobFile:
    """Read and check a whole job file.

    ``profile`` names one of its profiles, ``sets`` are values of ``--set`` in their order, and
    ``lake`` replaces the file's.

    Raises:
        UsageError: if the file can't be read.
        JobFileError: with every mistake at once, each with file, line, field, value and what is
            allowed.
    """
    file = os.fspath(path)
    document, mistakes = parse(_read(file), file)
    if mistakes and not document.value:
        raise JobFileError(mistakes)
    if not isinstance(document.value, dict):
        allowed = f"a mapping of {', '.join(TOP_FIELDS)}"
        mistake = document.mistake((), "is no mapping", got=shown(document), allowed=allowed)
        raise JobFileError([*mistakes, mistake])

    tree = job_tree(document, env, mistakes)
    profiles = profiles_of(document, tree, mistakes)
    chosen = profiles.pop(profile, None) if profile is not None else None
    if profile is not None and chosen is None:
        mistakes.append(_unknown_profile(profile, profiles, file))
    for other in profiles.values():
        # Its variables may well be undefined where it is not used; its values are checked.
        trial = Expansion(env, undefined_is_mistake=False)
        _check(tree.with_profile(other), document, trial)
        mistakes += trial.mistakes
    if chosen:
        tree = tree.with_profile(chosen)
    for number, text in enumerate(sets, 1):
        tree = tree.with_setting(text, number, mistakes)
    if lake is not None:
        tree = tree.with_lake(Node(lake, "--lake", 1, plain=False))
    expansion = Expansion(env)
    found = _check(tree, document, expansion)
    mistakes += expansion.mistakes
    if mistakes:
        raise JobFileError(_in_order(mistakes, file))
    return found


def _check(tree: JobTree, document: Node, expansion: Expansion) -> JobFile:
    lake = check_lake(tree.lake, document, expansion)
    jobs = {name: check_job(name, node, expansion) for name, node in tree.jobs.items()}
    expansion.mistakes += check_bundle_names(tree.jobs, jobs)
    night, notify = (tree.sections.get(name) for name in SECTIONS)
    return JobFile(
        lake,
        tuple(job for job in jobs.values() if job is not None),
        document.file,
        (check_section(NightSpec, "night", night, expansion) if night else None) or NightSpec(),
        check_section(NotifySpec, "notify", notify, expansion) if notify else None,
    )


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError("the job file can't be read", where=file, got=reason) from None
    except UnicodeDecodeError:
        raise UsageError("the job file is not UTF-8 text", where=file) from None


def _unknown_profile(name: str, profiles: Mapping[str, Node], file: str) -> Mistake:
    what = f"is no profile of {file}{hint(name, profiles)}"
    allowed = ", ".join(profiles) or "none: the file has no profiles"
    return Mistake("--profile", 1, "profiles", what, got=name, allowed=allowed)


def _in_order(mistakes: Sequence[Mistake], file: str) -> list[Mistake]:
    distinct = dict.fromkeys(mistakes)
    return sorted(distinct, key=lambda one: (one.file != file, one.file, one.line))
