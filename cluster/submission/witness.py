"""What one node of a cluster says of itself before a job file is run on it."""

import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cluster.storage import peek_storage
from schemas.errors import KeyFileError, RaywardError
from workers.pseudonyms import Pseudonymizer, key_file

SAME, OTHER = "same", "other"
"""Whether the node sees the lake the command wrote to."""
NO_KEY = ""


@dataclass(frozen=True)
class Question:
    """What every node is asked."""

    lake: str
    nonce: str
    """A number nobody can guess, written into the lake where the command runs."""
    paths: tuple[str, ...] = ()
    """Local paths the jobs read."""

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Question":
        """Read a question back from JSON values."""
        return Question(values["lake"], values["nonce"], tuple(values["paths"]))


@dataclass(frozen=True)
class NodeAnswer:
    """What a node answered."""

    host: str
    versions: Mapping[str, str]
    """Of python, ray and rayward."""
    lake: str
    """`same`, `other`, or the error it met."""
    key: str
    """Hex digits that tell pseudonym keys apart, empty without one, or the error it met."""
    missing: tuple[str, ...]
    """Paths of the question that are not there."""

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "NodeAnswer":
        """Read an answer back from JSON values."""
        return NodeAnswer(**{**values, "missing": tuple(values["missing"])})


def versions() -> dict[str, str]:
    """The versions that must agree wherever parts of a run compute."""
    return {
        "python": platform.python_version(),
        "ray": metadata.version("ray"),
        "rayward": metadata.version("rayward"),
    }


def nonce_path(nonce: str) -> str:
    """Where the nonce lies in the lake."""
    return f"_preflight/{nonce}"


def look(question: Question) -> NodeAnswer:
    """Answer for the machine this runs on; writes nothing."""
    return NodeAnswer(
        socket.gethostname(),
        versions(),
        _lake(question),
        _key(),
        _missing(question.paths),
    )


def _lake(question: Question) -> str:
    try:
        found = peek_storage(question.lake).get(nonce_path(question.nonce))
    except FileNotFoundError:
        return OTHER
    except RaywardError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - stores fail in many ways, each of them a finding
        return type(error).__name__
    return SAME if found.decode(errors="replace") == question.nonce else OTHER


def _key() -> str:
    if not key_file().exists():
        return NO_KEY
    try:
        return Pseudonymizer.from_key_file().check
    except KeyFileError as error:
        return str(error)


def _missing(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for one in paths if not Path(one).exists())
