"""Log lines as JSON objects, one a line, for whoever collects logs; text where nothing is said.

The environment variable names the format, so that the processes of an embedded Ray, and those of a
cluster whose nodes set it, write as the driver does.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from cluster.foreign import told as told_error
from schemas.errors import RaywardError, UsageError
from schemas.masking import masked

VARIABLE = "RAYWARD_LOG"
TOLD = "told"
"""Key of ``extra`` in calls of a logger: further fields of the line."""
_OURS = frozenset({"cluster", "jobs", "workers", "schemas"})
_NOBODY: Mapping[str, object] = {}


class LogFormat(StrEnum):
    """What log lines look like."""

    TEXT = "text"
    JSON = "json"


def log_format() -> LogFormat:
    """The format that the environment names; text where it names none.

    Raises:
        UsageError: if there is no such format.
    """
    named = os.environ.get(VARIABLE, "").lower()
    try:
        return LogFormat(named or LogFormat.TEXT)
    except ValueError:
        raise UsageError(
            "There is no such log format",
            where=VARIABLE,
            got=named,
            remedy=f"use one of {', '.join(LogFormat)}",
        ) from None


def wants_json() -> bool:
    """Whether log lines are JSON objects."""
    return os.environ.get(VARIABLE, "").lower() == LogFormat.JSON


def configure_logs() -> None:
    """Make what this process logs JSON objects on stderr, where the environment says so."""
    if not wants_json():
        return
    root = logging.getLogger()
    if any(isinstance(one.formatter, JsonFormatter) for one in root.handlers):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    logging.captureWarnings(True)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)


@contextmanager
def log_fields(fields: Mapping[str, object]) -> Iterator[None]:
    """Let every line of the block bear ``fields``: job, run_id, shard, node."""
    token = _FIELDS.set({**_FIELDS.get(), **fields})
    try:
        yield
    finally:
        _FIELDS.reset(token)


_FIELDS: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=_NOBODY)


class JsonFormatter(logging.Formatter):
    """One object a line; secrets are masked, and words of other libraries are not repeated.

    Their messages may quote paths, object names or file contents, and those may name a patient: of
    such a line the library and the place are told, of an exception its class and place.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        ours = record.name.partition(".")[0] in _OURS
        place = f"{PurePath(record.pathname).name}:{record.lineno}"
        message = record.getMessage() if ours else f"{record.name} at {place}"
        told = dict(getattr(record, TOLD, {})) if ours else {}
        if record.exc_info and record.exc_info[1] is not None:
            told["error"] = _told(record.exc_info[1])
        stamp = datetime.fromtimestamp(record.created, UTC)
        return _line(stamp, record.levelname.lower(), message, {"logger": record.name, **told})


def log_line(message: str, fields: Mapping[str, object] = _NOBODY, level: str = "info") -> str:
    """A line for what is printed rather than logged, such as a job's progress."""
    return _line(datetime.now(UTC), level, message, fields)


def _line(time: datetime, level: str, message: str, fields: Mapping[str, object]) -> str:
    stamp = time.isoformat(timespec="milliseconds")
    values: dict[str, Any] = {"time": stamp, "level": level, "message": message}
    values |= {**_FIELDS.get(), **fields}
    return json.dumps(
        {name: masked(one) if isinstance(one, str) else one for name, one in values.items()},
        ensure_ascii=False,
        default=lambda value: type(value).__name__,
    )


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, RaywardError) else told_error(error)
