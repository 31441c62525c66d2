"""What may be told of errors that are not ours: their messages may quote paths or contents."""

import re
import traceback
from pathlib import PurePath

_LAST_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def told(error: BaseException, trace: str = "") -> str:
    """The class and the place of an error: ``ConnectionError at fetch.py:40``.

    ``trace`` is its traceback as text, where it came from another process without one.
    """
    frames = [(one.filename, one.lineno) for one in traceback.extract_tb(error.__traceback__)]
    found = _LAST_FRAME.findall(trace) or frames
    if not found:
        return type(error).__name__
    file, line = found[-1]
    return f"{type(error).__name__} at {PurePath(file).name}:{line}"
