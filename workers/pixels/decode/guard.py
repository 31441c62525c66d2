"""Keeps decoders in their place: no foreign exception, warning, log line or C-level noise."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import cv2

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason

LOGGERS = ("pydicom", "PIL", "pylibjpeg", "libjpeg", "openjpeg", "rle")
"""Loggers of the decoders. Their lines quote header values, which identify patients."""


@contextmanager
def rejecting() -> Iterator[None]:
    """Turn whatever a decoder raises on bad data into a `RejectedImage`.

    Decoders raise KeyError, struct.error, RecursionError and more on broken files, and their
    messages quote file contents; so the detail names the class alone.
    """
    try:
        yield
    except RejectedImage:
        raise
    except MemoryError as error:
        raise RejectedImage(RejectReason.OUT_OF_MEMORY, "while decoding") from error
    except Exception as error:  # noqa: BLE001
        raise RejectedImage(reason_of(error), type(error).__name__) from None
    except BaseException as error:
        # A decoder written in Rust panics on bad data, and PyO3 raises that beside `Exception`.
        if type(error).__name__ != "PanicException":
            raise
        raise RejectedImage(RejectReason.CORRUPT, "the decoder panicked") from None


def reason_of(error: Exception) -> RejectReason:
    """Tell apart what a decoder's exception means; `CORRUPT` when it does not say.

    Pillow has no classes for these cases, so its fixed phrases are looked for.
    """
    text = str(error).lower()
    if type(error).__name__ == "DecompressionBombError":
        return RejectReason.TOO_MANY_PIXELS
    if isinstance(error, EOFError) or "truncated" in text or "less than expected" in text:
        return RejectReason.TRUNCATED
    if isinstance(error, NotImplementedError) or "support" in text:
        return RejectReason.UNSUPPORTED_ENCODING
    return RejectReason.CORRUPT


class _Hush:
    """Counts who wants quiet, because filters and descriptors belong to the whole process.

    `warnings.catch_warnings` restores what it found; two threads that overlap would restore in
    the wrong order. So the first to come sets, and the last to go restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = {"python": 0, "native": 0}
        self._undo = {"python": ExitStack(), "native": ExitStack()}
        self._loggers_set = False

    def enter(self, level: str) -> None:
        with self._lock:
            self._depth[level] += 1
            if self._depth[level] == 1:
                enter = self._enter_python if level == "python" else self._enter_native
                enter(self._undo[level])

    def leave(self, level: str) -> None:
        with self._lock:
            self._depth[level] -= 1
            if self._depth[level] == 0:
                self._undo[level].close()

    def silence_loggers(self) -> None:
        if not self._loggers_set:
            for name in LOGGERS:
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self._loggers_set = True

    def _enter_python(self, undo: ExitStack) -> None:
        self.silence_loggers()
        undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")

    def _enter_native(self, undo: ExitStack) -> None:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        undo.callback(os.close, kept)
        undo.callback(os.dup2, kept, 2)


_hush = _Hush()


def silence_loggers() -> None:
    """Silence the decoders' loggers in this process, once and for good."""
    _hush.silence_loggers()


@contextmanager
def quiet(*, native: bool = False) -> Iterator[None]:
    """Keep Python warnings of decoders in; with ``native`` also what C libraries print.

    ``native`` points descriptor 2 of the process to nowhere, other threads' included, so it is
    for rare formats only (TIFF, compressed DICOM), never for the fast paths.
    """
    levels = ("python", "native") if native else ("python",)
    for level in levels:
        _hush.enter(level)
    try:
        yield
    finally:
        for level in reversed(levels):
            _hush.leave(level)
