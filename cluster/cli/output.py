"""Writing to stdout and stderr."""

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

from cluster.watching.logs import log_line, wants_json
from schemas.errors import UsageError

_STDOUT, _STDERR = 1, 2


def say(text: str) -> None:
    """Tell the user something; stdout stays for results."""
    print(log_line(text) if wants_json() else text, file=sys.stderr)


def print_json(value: Mapping[str, Any] | list[Any], stream: TextIO | None = None) -> None:
    """Write one JSON value as one line."""
    print(json.dumps(value, allow_nan=False), file=stream or sys.stdout, flush=True)


@contextmanager
def whole_file(output: Path) -> Iterator[Path]:
    """Yield a path to write to, whose file becomes ``output`` whole, or not at all.

    Raises:
        UsageError: if the file can't be written.
    """
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(output)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(
            "The output can't be written", where=str(output), got=error.strerror or ""
        ) from None


@contextmanager
def reserved_stdout() -> Iterator[TextIO]:
    """Keep stdout for the caller: whatever else prints there, in C too, goes to stderr."""
    sys.stdout.flush()
    saved = os.dup(_STDOUT)
    with ExitStack() as stack:
        own = sys.stdout
        with suppress(io.UnsupportedOperation):  # a stream in memory needs no keeping
            own = stack.enter_context(os.fdopen(os.dup(own.fileno()), "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(sys.stderr))
        os.dup2(_STDERR, _STDOUT)
        try:
            yield own
        finally:
            os.dup2(saved, _STDOUT)
            os.close(saved)
