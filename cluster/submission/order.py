"""What a submission asks for, as it travels with the package: the job file, resolved and checked.

Variables, profiles and ``--set`` are settled where the command runs, so the cluster computes what
was checked. Relative paths keep their meaning: a file that goes with the package stays relative,
and anything else becomes the absolute path it was, to be found on a shared mount.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

from schemas.errors import UsageError
from schemas.jobfile import JobFile
from schemas.masking import holds_secret
from schemas.plan import fingerprint
from schemas.specs import SPECS, JobSpec
from schemas.specs.base import Spec
from schemas.specs.night import NightSpec, NotifySpec

ORDER_FILE = ".rayward/order.json"
"""Where it lies in the package."""

PATH_FIELDS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        "annotate": (("masks", "root"), ("csv", "file"), ("coco", "file")),
        "explain": (("regions",),),
        "ingest": (("source",), ("metadata", "file")),
        "phantoms": (("target",),),
        "pretrain": (("start",),),
        "train": (("start",),),
        "train_detector": (("start",),),
    }
)
"""Fields that hold a path or a URI, by kind. A kind that reads or writes files is added here."""
STUDY_PARTS = ("train", "score", "evaluate")
"""Fields of a study that hold fields of these kinds; its grid holds more of the first's."""
_NO_PATH = re.compile(r"none|pretrained|bundle:.*")
"""What `start` of a training may hold instead."""


@dataclass(frozen=True)
class Order:
    """A submission as the cluster gets it."""

    submission_id: str
    job_file: JobFile
    only: tuple[str, ...] = ()
    night: date | None = None
    """The night that runs are filed under; when not given, that in which the driver begins."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits; orders with equal ones ask for the same, whatever they are called."""
        return fingerprint({"lake": self.job_file.lake, "jobs": self._jobs(), "only": self.only})

    def to_bytes(self) -> bytes:
        """The order as its file holds it.

        Raises:
            UsageError: if it holds a secret.
        """
        document = {
            "submission_id": self.submission_id,
            "lake": self.job_file.lake,
            "path": self.job_file.path,
            "jobs": self._jobs(),
            "night": _given(self.job_file.night),
            "notify": self.job_file.notify and _given(self.job_file.notify),
            "only": self.only,
            "date": self.night and self.night.isoformat(),
        }
        text = json.dumps(document, indent=1)
        if holds_secret(text):
            raise UsageError(
                "The job file holds a secret, which would travel in the clear",
                where=self.job_file.path,
                remedy="credentials come from the environment of the nodes, a profile or a role",
            )
        return text.encode()

    @staticmethod
    def from_bytes(data: bytes) -> "Order":
        """Read an order back."""
        document = json.loads(data)
        notify = document["notify"]
        job_file = JobFile(
            document["lake"],
            tuple(_spec(one) for one in document["jobs"]),
            document["path"],
            NightSpec.model_validate_json(json.dumps(document["night"])),
            None if notify is None else NotifySpec.model_validate_json(json.dumps(notify)),
        )
        night = date.fromisoformat(document["date"]) if document["date"] else None
        return Order(document["submission_id"], job_file, tuple(document["only"]), night)

    def _jobs(self) -> list[dict[str, Any]]:
        return [_values(spec) for spec in self.job_file.jobs]


def settle_paths(job_file: JobFile, here: Path, root: Path, packed: Sequence[str]) -> JobFile:
    """Make local paths hold on the cluster too; those of files in the package become relative.

    Args:
        job_file: The job file.
        here: Absolute path of the folder its relative paths start at.
        root: Absolute path of the working directory.
        packed: Paths in the package, relative to ``root``.

    Raises:
        UsageError: if a path is also the label of a study's trials, and would change.
    """
    known = set(packed)

    def settled(uri: str) -> str:
        if "://" in uri:
            return uri
        path = absolute(here, uri)
        inside = path.relative_to(root).as_posix() if path.is_relative_to(root) else ""
        return inside if inside in known else str(path)

    jobs = tuple(_spec(_mapped(_values(spec), settled)) for spec in job_file.jobs)
    lake = job_file.lake if "://" in job_file.lake else str(absolute(here, job_file.lake))
    return replace(job_file, lake=lake, jobs=jobs)


def local_paths(jobs: Sequence[JobSpec]) -> list[str]:
    """The local paths that jobs name, as they name them, each once."""
    found: list[str] = []

    def note(uri: str) -> str:
        found.append(uri)
        return uri

    for spec in jobs:
        _mapped(_values(spec), note)
    return [uri for uri in dict.fromkeys(found) if "://" not in uri]


def absolute(here: Path, path: str) -> Path:
    """A path that starts at ``here`` unless it is absolute already."""
    # Not resolved: a mount may be a link here and a folder there.
    return Path(os.path.normpath(here / Path(path).expanduser()))


def _values(spec: JobSpec) -> dict[str, Any]:
    return {"kind": spec.kind, "name": spec.name, **_given(spec)}


def _given(spec: Spec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_unset=True)


def _spec(values: Mapping[str, Any]) -> JobSpec:
    return SPECS[values["kind"]].model_validate_json(json.dumps(values), strict=True)


def _mapped(values: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A job's values with each path changed."""
    _change(values["kind"], values, change)
    if values["kind"] == "study":
        for part in STUDY_PARTS:
            _change(part, values.get(part) or {}, change)
        grid: dict[str, Any] = values.get("grid") or {}
        for name, axis in grid.items():
            grid[name] = _axis(name, axis, change)
    return values


def _axis(name: str, axis: Any, change: Callable[[str], str]) -> Any:
    """An axis of a study's grid with each path changed.

    Raises:
        UsageError: if a path of a list changes. It is a label too, and the name of trials, which
            would not be those of the same study run here.
    """
    if isinstance(axis, list):
        if (name,) in PATH_FIELDS["train"]:
            for value in axis:
                if _changed(value, change) != value:
                    raise UsageError(
                        "A path that names trials means another place on the cluster",
                        where=f"grid.{name}",
                        got=value,
                        remedy=f"write it absolute, or with a label: {{LABEL: {{{name}: PATH}}}}",
                    )
        return axis
    for fields in axis.values():
        _change("train", fields, change)
    return axis


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    is_path = isinstance(value, str) and not _NO_PATH.fullmatch(value)
    return change(value) if is_path else value


def _change(kind: str, values: dict[str, Any], change: Callable[[str], str]) -> None:
    """Change each path among a kind's fields, in place."""
    for *folders, last in PATH_FIELDS.get(kind, ()):
        at: Any = values
        for name in folders:
            at = at.get(name) or {}
        if last in at:
            at[last] = _changed(at[last], change)
