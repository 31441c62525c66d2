"""A job file's tree: its jobs by name, and what profiles and ``--set`` change in it."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from schemas.errors import Mistake
from schemas.masking import names_secret
from schemas.yamltree import Node, Path, expanded, merge, parse

SECTIONS = ("night", "notify")
"""Parts of a file that are said of all its jobs together."""
TOP_FIELDS = ("lake", *SECTIONS, "jobs", "profiles")
_PROFILE_FIELDS = ("lake", *SECTIONS, "jobs")
NAMELESS = "jobs["
"""How the names of jobs begin that have none of their own; no name can hold a bracket."""
_FIXED_FIELDS = frozenset({"kind", "name"})
"""What a job is; a profile or ``--set`` that changed it would describe another job."""


@dataclass(frozen=True)
class JobTree:
    """The lake and the jobs by name in their order, before their values are checked."""

    lake: Node | None
    jobs: Mapping[str, Node]
    sections: Mapping[str, Node] = field(default_factory=dict)
    """Those of `SECTIONS` that the file has."""

    @property
    def targets(self) -> list[str]:
        """What a profile or ``--set`` may name: jobs, and kinds that are no job's name."""
        kinds = [str(kind.value) for job in self.jobs.values() if (kind := job.child("kind"))]
        names = [name for name in self.jobs if not name.startswith(NAMELESS)]
        return list(dict.fromkeys([*names, *kinds]))

    def named(self, target: str) -> list[str]:
        """The job of that name or, where there is none, the jobs of that kind."""
        if target in self.jobs:
            return [target]
        kinds = {name: job.child("kind") for name, job in self.jobs.items()}
        return [name for name, kind in kinds.items() if kind and kind.value == target]

    def with_lake(self, lake: Node) -> "JobTree":
        """The same jobs on another lake."""
        return replace(self, lake=lake)

    def with_fields(self, target: str, fields: Node) -> "JobTree":
        """The same jobs, with fields of those that ``target`` names replaced."""
        jobs = dict(self.jobs)
        if isinstance(fields.value, dict):
            allowed = {key: one for key, one in fields.value.items() if key not in _FIXED_FIELDS}
            fields = replace(fields, value=allowed)
        for name in self.named(target):
            jobs[name] = merge(jobs[name], fields)
        return replace(self, jobs=jobs)

    def with_section(self, name: str, changes: Node) -> "JobTree":
        """The same jobs, with a section replaced entry by entry."""
        base = self.sections.get(name)
        merged = merge(base, changes) if base else changes
        return replace(self, sections={**self.sections, name: merged})

    def with_profile(self, profile: Node) -> "JobTree":
        """The jobs as a profile changes them."""
        lake = profile.child("lake")
        tree = self.with_lake(lake) if lake else self
        for name in SECTIONS:
            section = profile.child(name)
            tree = tree.with_section(name, section) if section else tree
        changes = profile.child("jobs")
        if changes is None or not isinstance(changes.value, dict):
            return tree
        # Kinds first, so that what a profile says of one job by name wins.
        for target in sorted(changes.value, key=lambda target: target in self.jobs):
            fields = changes.value[target]
            if isinstance(fields.value, dict):
                tree = tree.with_fields(target, fields)
        return tree

    def with_setting(self, text: str, number: int, mistakes: list[Mistake]) -> "JobTree":
        """The jobs as the ``number``-th option ``--set text`` changes them."""
        name, equals, written = text.partition("=")
        name = name.strip()
        target, path = self._locate(name)
        place = Node("", "--set", number)
        if not equals or (target is None and name != "lake"):
            allowed = f"lake=VALUE, or JOB.FIELD=VALUE with JOB out of {', '.join(self.targets)}"
            what = "names nothing in the job file"
            mistakes.append(place.mistake((name,), what, got=text, allowed=allowed))
            return self
        if path and path[0] in _FIXED_FIELDS:
            mistakes.append(
                place.mistake((name,), "can't be set", got=text, allowed="the fields of the kind")
            )
            return self
        value, found = parse(written, "--set", (name,), number)
        mistakes += found
        if found:
            return self
        if target is None:
            return self.with_lake(value)
        for key in reversed(path):
            value = Node({str(key): value}, "--set", number)
        return self.with_fields(target, value)

    def _locate(self, name: str) -> tuple[str | None, Path]:
        # Names may hold dots themselves, so the longest name that fits is meant.
        rest = name.removeprefix("jobs.")
        fitting = [target for target in self.targets if rest.startswith(f"{target}.")]
        if not fitting:
            return None, ()
        target = max(fitting, key=len)
        return target, tuple(rest[len(target) + 1 :].split("."))


def job_tree(document: Node, env: Mapping[str, str], mistakes: list[Mistake]) -> JobTree:
    """Find the jobs of a document; a job without a usable name is called ``jobs[PLACE]``."""
    note_unknown(document, (), TOP_FIELDS, mistakes)
    sections = {name: one for name in SECTIONS if (one := document.child(name)) is not None}
    node = document.child("jobs")
    if node is None or not isinstance(node.value, list) or not node.value:
        empty = node is not None and node.value == []
        what = "is empty" if empty else "is no list of jobs" if node else "is missing"
        got, allowed = shown(node), "a list of at least one job"
        mistakes.append((node or document).mistake(("jobs",), what, got=got, allowed=allowed))
        return JobTree(document.child("lake"), {}, sections)
    jobs: dict[str, Node] = {}
    for place, job in enumerate(node.value):
        path: Path = ("jobs", place)
        if not isinstance(job.value, dict):
            allowed = "a mapping of kind, name and the fields of the kind"
            mistakes.append(job.mistake(path, "is no job", got=shown(job), allowed=allowed))
            continue
        given = job.child("name") or job.child("kind")
        usable = given is not None and isinstance(given.value, str) and given.value
        name = expanded(str(given.value), env) if given and usable else f"{NAMELESS}{place}]"
        if name in jobs and given:
            what = "is the name of two jobs"
            allowed = f"a name of its own; the first job is on line {jobs[name].line}"
            mistakes.append(given.mistake((*path, "name"), what, got=name, allowed=allowed))
            name = f"{NAMELESS}{place}]"
        jobs[name] = job
    return JobTree(document.child("lake"), jobs, sections)


def profiles_of(document: Node, tree: JobTree, mistakes: list[Mistake]) -> dict[str, Node]:
    """The profiles of a document by name; notes what is wrong with their form."""
    node = document.child("profiles")
    if node is None:
        return {}
    allowed = "names of profiles to mappings of lake and jobs"
    if not _is_mapping(node, ("profiles",), allowed, mistakes):
        return {}
    profiles = node.value if isinstance(node.value, dict) else {}
    for name, profile in profiles.items():
        _check_profile(profile, ("profiles", name), tree, mistakes)
    return profiles


def _check_profile(profile: Node, path: Path, tree: JobTree, mistakes: list[Mistake]) -> None:
    if not _is_mapping(profile, path, ", ".join(_PROFILE_FIELDS), mistakes):
        return
    note_unknown(profile, path, _PROFILE_FIELDS, mistakes)
    changes = profile.child("jobs")
    path = (*path, "jobs")
    if changes is None or not _is_mapping(changes, path, "jobs to fields", mistakes):
        return
    for target, fields in changes.value.items() if isinstance(changes.value, dict) else ():
        here = (*path, target)
        if not tree.named(target):
            what = f"is no job of this file{hint(target, tree.targets)}"
            allowed = ", ".join(tree.targets)
            mistakes.append(fields.mistake(here, what, got=target, allowed=allowed))
        elif _is_mapping(fields, here, "the job's fields to values", mistakes):
            for name in sorted(_FIXED_FIELDS):
                fixed = fields.child(name)
                if fixed:
                    what, allowed = "can't be changed by a profile", "the fields of the kind"
                    mistakes.append(
                        fixed.mistake((*here, name), what, got=shown(fixed), allowed=allowed)
                    )


def _is_mapping(node: Node, path: Path, allowed: str, mistakes: list[Mistake]) -> bool:
    if isinstance(node.value, dict):
        return True
    mistakes.append(node.mistake(path, "is no mapping", got=shown(node), allowed=allowed))
    return False


def note_unknown(node: Node, path: Path, known: Sequence[str], mistakes: list[Mistake]) -> None:
    """Note the keys of a mapping that are not ``known``."""
    for key, child in node.value.items() if isinstance(node.value, dict) else ():
        if key not in known:
            mistakes.append(unknown_field(child, (*path, key), known))


def unknown_field(node: Node, path: Path, known: Sequence[str]) -> Mistake:
    """A field that does not exist, with the one that may have been meant."""
    key = str(path[-1])
    got = "(hidden)" if names_secret(key) else shown(node)
    what = f"is no field here{hint(key, known)}"
    return node.mistake(path, what, got=got, allowed=", ".join(known))


def hint(given: str, known: Iterable[str]) -> str:
    """Say ``(did you mean ...?)`` where one of the known words is close, else nothing."""
    close = difflib.get_close_matches(given, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def shown(node: Node | None, env: Mapping[str, str] | None = None) -> str:
    """A value as a mistake shows it: short, quoted where it was quoted."""
    if node is None:
        return ""
    if isinstance(node.value, dict):
        return f"a mapping of {', '.join(node.value) or 'nothing'}"
    if isinstance(node.value, list):
        return f"a list of {len(node.value)}"
    text = expanded(node.value, env) if env is not None else node.value
    text = text if node.plain and text else f"'{text}'"
    return text if len(text) <= 80 else f"{text[:77]}..."
